"""Which layers can be factorized, how large they are and what their inputs look like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod

import numpy as np

from onnxslim import ir
from onnxslim.analyses.columns import row_count
from onnxslim.analyses.held_out import split
from onnxslim.analyses.layer_stats import LayerStats, Moments, Statistics, Tap
from onnxslim.analyses.linear import Linear, linear_layers
from onnxslim.analyses.shapes import Shapes, ShapeTable
from onnxslim.ir import Model
from onnxslim.passes.lowrank.schemes import Geometry
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Declined
from onnxslim.runtime.samples import Samples

_LONGEST = 4.0
"""Rows may be that many times as long as the others before they count for less (`shorten`)."""
_PER_FEATURE = 64
"""Rows of texts for each feature, at most: those of images overlap, and 16 tell as much."""


@dataclass(frozen=True)
class Site:
    """A layer that may be factorized; without moments only its weights are known."""

    name: str  # what reports call the layer
    layer: Linear
    shape: Geometry
    fit: Moments | None
    held: Moments | None = None  # of samples held out; None where there are few

    @property
    def moments(self) -> Moments | None:
        """Of all samples. Cost: one addition of two covariances."""
        return self.fit if self.fit is None or self.held is None else self.fit.merge(self.held)


def survey(
    model: Model, ctx: Context, skip: tuple[str, ...], min_dim: int
) -> tuple[list[Site], list[Declined]]:
    """The layers that qualify, in order, and those that do not, with the reason.

    Raises:
        RuntimeUnavailable: there are calibration samples and the model cannot be run.
    """
    layers, others = linear_layers(model)
    declined = _quantized(model, others)
    shapes = ctx.analyses.get(Shapes())
    kept: list[tuple[Linear, Geometry]] = []
    for layer in layers:
        found = _geometry(layer, shapes)
        reason = found if isinstance(found, str) else _refusal(layer, found, skip, min_dim)
        if reason is None and isinstance(found, Geometry):
            kept.append((layer, found))
        else:
            declined.append(Declined(ir.label(layer.node), str(reason)))
    if ctx.env.calib is None:
        return [Site(ir.label(layer.node), layer, shape, None) for layer, shape in kept], declined
    taps = tuple(dict.fromkeys(layer.tap for layer, _ in kept))
    fit, held = _statistics(model, ctx, taps)
    sites: list[Site] = []
    for layer, shape in kept:
        site = _with_moments(layer, shape, fit, held)
        if isinstance(site, Site):
            sites.append(site)
        else:
            declined.append(Declined(ir.label(layer.node), site))
    return sites, declined


def held_out(samples: Samples) -> tuple[Samples, Samples | None]:
    """Samples to fit to and others to judge by; none to judge by where there are few."""
    kept, out = split(len(samples))
    return (samples.take(kept), samples.take(out)) if out else (samples, None)


def _statistics(
    model: Model, ctx: Context, taps: tuple[Tap, ...]
) -> tuple[Statistics, Statistics | None]:
    """Of the samples to fit and of those held out; together they are all samples, run once."""
    assert ctx.env.calib is not None
    images = any(tap.window is not None for tap in taps)
    request = LayerStats(taps=taps, longest=_LONGEST)
    if not images:
        request = replace(request, per_feature=_PER_FEATURE)
    parts = held_out(ctx.env.calib)
    if parts[1] is None:
        return ctx.analyses.get(request), None
    fit, held = (
        _narrow(AnalysisManager(model, replace(ctx.env, calib=part)).get(request)) for part in parts
    )
    return fit, held


def _narrow(found: Statistics) -> Statistics:
    """Both parts are kept until the factors are written."""
    return replace(found, moments={tap: m.narrow() for tap, m in found.moments.items()})


_INTEGER = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
    | {"com.microsoft::MatMulNBits", "com.microsoft::QGemm", "com.microsoft::DynamicQuantizeMatMul"}
    | {"com.microsoft::MatMulIntegerToFloat"}
)


def _quantized(model: Model, declined: list[Declined]) -> list[Declined]:
    """The layers that are none, and those that hold integers, with that reason."""
    reason = "its weight is quantized already; give lowrank the float model"
    found: dict[str, str] = {d.node: d.reason for d in declined}
    for node in ir.nodes(model):
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        maker = None if weight is None else weight.producer()
        name = ir.label(node)
        behind = maker is not None and ir.op(maker) == "DequantizeLinear"
        if ir.op(node) in _INTEGER or (behind and name in found):
            found[name] = reason
    return [Declined(name, why) for name, why in found.items()]


def _geometry(layer: Linear, shapes: ShapeTable) -> Geometry | str:
    """The sizes of a layer, from a real run or from what is declared; or why there are none."""
    name = str(layer.input.name)
    seen = shapes.sizes(name) or _fixed(shapes.shape(name))
    if seen is None:
        return "the size of its input is not known"
    out = layer.out_features // layer.groups
    window = layer.tap.window
    if window is None:
        return Geometry(1, out, layer.in_features, row_count(layer.tap, seen))
    channels = layer.in_features // prod(window.kernel)
    sites = tuple(seen[2:])
    return Geometry(
        layer.groups, out, channels, seen[0], window.kernel, sites, window.positions(sites)
    )


def _fixed(shape: tuple[int | str | None, ...] | None) -> tuple[int, ...] | None:
    """A declared shape whose batch may be open."""
    if shape is None or not shape:
        return None
    sizes = [1 if i == 0 and not isinstance(n, int) else n for i, n in enumerate(shape)]
    fixed = tuple(n for n in sizes if isinstance(n, int))
    return fixed if len(fixed) == len(sizes) else None


def _refusal(layer: Linear, shape: Geometry, skip: tuple[str, ...], min_dim: int) -> str | None:
    if any(fnmatchcase(ir.label(layer.node), pattern) for pattern in skip):
        return "named in skip"
    if shape.macs == 0:
        return "its input or output is empty"
    if shape.channels == 1 and shape.out == 1:
        return "a depthwise convolution has no two channels to combine"
    if min(shape.out, shape.features) < min_dim:
        return f"it has fewer than min_dim={min_dim} inputs or outputs"
    weight = layer.matrix()
    if not np.isfinite(weight).all():
        return "the weight holds NaN or infinity"
    if layer.kind == "gemm" and _opset(layer) < 11:
        return "Gemm needs a third input before opset 11"
    return None


def _opset(layer: Linear) -> int:
    graph = layer.node.graph
    versions = {} if graph is None else graph.opset_imports
    return int(versions.get("", 99)) if versions else 99


def _with_moments(
    layer: Linear, shape: Geometry, fit: Statistics, held: Statistics | None
) -> Site | str:
    found: list[Moments] = []
    for statistics in (fit, held):
        if statistics is None:
            continue
        moments = statistics.moments.get(layer.tap)
        if moments is None:
            reason = statistics.missing.get(layer.tap.tensor, "it was not seen")
            return f"no statistics of its input: {reason}"
        if not np.isfinite(moments.scatter).all() or not np.isfinite(moments.mean).all():
            return "the statistics of its input hold NaN or infinity"
        found.append(moments)
    if float(np.trace(found[0].scatter, axis1=1, axis2=2).min()) <= 0:
        return "its input never varied in the calibration samples, so no rank can be judged"
    return Site(ir.label(layer.node), layer, shape, *found)
