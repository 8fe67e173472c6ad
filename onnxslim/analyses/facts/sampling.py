"""Resize and Upsample: sizes from scales or as given."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import numpy as np

from onnxslim.analyses.facts.dims import Dim
from onnxslim.analyses.facts.fact import MOST_ELEMENTS, Fact, Rules, Shape, Site, axes_of


def _resize(site: Site) -> Fact:
    shape = site.shape()
    if shape is None:
        return Fact(site.dtype())
    return Fact(site.dtype(), _resized(site, shape))


def _resized(site: Site, shape: Shape) -> Shape:
    if site.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        return site.sizes(len(shape))
    given = site.attr("axes")
    axes = tuple(range(len(shape))) if given is None else axes_of(given, len(shape))
    if site.version >= 11 and site.has(3):
        sizes = site.elements(3)
        found = None if sizes is None else [*sizes]
    else:
        found = _scaled(site, [shape[axis] for axis in axes])
    if found is None or len(found) != len(axes):
        return site.sizes(len(shape))
    made = list(shape)
    for axis, size in zip(axes, found, strict=True):
        made[axis] = size
    return tuple(made)


def _scales(site: Site) -> Sequence[float] | None:
    if site.op == "Upsample" and site.version < 9:
        given: Sequence[float] | None = site.attr("scales")
        return given
    fact = site.fact(1 if site.version < 11 else 2)
    if fact.tensor is None or fact.count is None or not 0 < fact.count <= MOST_ELEMENTS:
        return None
    found: Sequence[float] = fact.tensor.numpy().ravel().tolist()
    return found


def _scaled(site: Site, sizes: Sequence[Dim]) -> list[Dim] | None:
    scales = _scales(site)
    if site.attr("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return None  # the region of interest may count too
    if scales is None or len(scales) != len(sizes):
        return None
    found: list[Dim] = []
    for size, scale in zip(sizes, scales, strict=True):
        made = _times(size, float(scale))
        found.append(site.fresh(True) if made is None else made)
    return found


def _times(size: Dim, scale: float) -> Dim | None:
    """floor(size * scale); None where single and double precision differ."""
    if scale == int(scale):
        return size * int(scale)
    if not isinstance(size, int):
        return None
    single = floor(np.multiply(np.float32(size), np.float32(scale)).item())
    return single if single == floor(size * scale) else None


RULES: Rules = {"Resize": _resize, "Upsample": _resize}
