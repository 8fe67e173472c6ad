"""Reductions along axes, and normalizations with what they give beside the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

from onnxslim.analyses.facts import dims
from onnxslim.analyses.facts.dims import Dim
from onnxslim.analyses.facts.fact import LIMITS, Fact, Rules, Shape, Site, axes_of, axis_of
from onnxslim.ir import DataType

_AXES_AS_INPUT = {"ReduceSum": 13}
"""Since when the axes are an input; opset 18 for the other reductions."""

_FOLDS: dict[str, Callable[[Dim, Dim], Dim]] = {
    "ReduceSum": dims.add,
    "ReduceProd": dims.multiply,
    "ReduceMax": dims.maximum,
    "ReduceMin": dims.minimum,
}


def _axes(site: Site, rank: int) -> tuple[int, ...] | None:
    """The axes to reduce; None where they are not known."""
    if site.version < _AXES_AS_INPUT.get(site.op, 18):
        given: Sequence[int] | None = site.attr("axes")
        return tuple(range(rank)) if given is None else axes_of(given, rank)
    axes = site.ints(1) if site.has(1) else ()
    if axes is None:
        return None
    if not axes and not site.attr("noop_with_empty_axes", 0):
        return tuple(range(rank))
    return axes_of(axes, rank)


def _without(shape: Shape, axes: Sequence[int], keep: bool) -> Shape:
    if keep:
        return tuple(1 if i in axes else size for i, size in enumerate(shape))
    return tuple(size for i, size in enumerate(shape) if i not in axes)


def _reduce(site: Site) -> Fact:
    shape, keep = site.shape(), bool(site.attr("keepdims", 1))
    if shape is None:
        return Fact(site.dtype())
    axes = _axes(site, len(shape))
    if axes is None:
        return Fact(site.dtype(), site.sizes(len(shape)) if keep else None)
    made = _without(shape, axes, keep)
    return Fact(site.dtype(), made, _folded(site, len(shape), axes))


def _folded(site: Site, rank: int, axes: Sequence[int]) -> tuple[Dim, ...] | None:
    """The one element that a vector is reduced to."""
    content, f = site.content(0), _FOLDS.get(site.op)
    if not content or f is None or rank != 1 or len(axes) != 1 or site.dtype() not in LIMITS:
        return None
    result, (low, high) = reduce(f, content), LIMITS[site.dtype() or DataType.INT64]
    return None if isinstance(result, int) and not low <= result <= high else (result,)


def _arg(site: Site) -> Fact:
    shape = site.shape()
    if shape is None:
        return Fact(DataType.INT64)
    axis = axis_of(int(site.attr("axis", 0)), len(shape))
    return Fact(DataType.INT64, _without(shape, (axis,), bool(site.attr("keepdims", 1))))


def _layer_norm(site: Site) -> Sequence[Fact]:
    """The result, and mean and inverse deviation, whose type `stash_type` says."""
    shape = site.shape()
    stash = DataType(int(site.attr("stash_type", 1)))
    made = [Fact(site.dtype(), shape), Fact(stash), Fact(stash)]
    if shape is not None and shape:
        axis = axis_of(int(site.attr("axis", -1)), len(shape))
        rest = (*shape[:axis], *[1] * (len(shape) - axis))
        made[1:] = [Fact(stash, rest), Fact(stash, rest)]
    return made


def _batch_norm(site: Site) -> Fact:
    return Fact(site.dtype(), site.shape())


_REDUCTIONS = """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare
""".split()  # noqa: SIM905

RULES: Rules = {
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "ArgMax": _arg,
    "ArgMin": _arg,
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
}
