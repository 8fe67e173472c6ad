"""Operators that pick, join and cut along axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxslim.analyses.facts import dims
from onnxslim.analyses.facts.dims import Dim
from onnxslim.analyses.facts.fact import (
    MOST_ELEMENTS,
    Contradiction,
    Fact,
    Rules,
    Shape,
    Site,
    axes_of,
    axis_of,
    from_grid,
    grid,
    numbers,
)
from onnxslim.analyses.facts.slices import indices, sliced
from onnxslim.ir import DataType


def _gather(site: Site) -> Fact:
    data, indices = site.shape(0), site.shape(1)
    if data is None or indices is None:
        return Fact(site.dtype())
    axis = axis_of(int(site.attr("axis", 0)), len(data))
    shape = (*data[:axis], *indices, *data[axis + 1 :])
    cells, chosen = grid(site.fact(0)), grid(site.fact(1))
    if cells is None or chosen is None or numbers(site.content(1)) is None:
        return Fact(site.dtype(), shape)
    picks = chosen.astype(np.int64)
    if picks.size and not (-cells.shape[axis] <= picks.min() and picks.max() < cells.shape[axis]):
        raise Contradiction
    return from_grid(site.dtype(), np.take(cells, picks, axis=axis))


def _like_indices(site: Site) -> Fact:
    return Fact(site.dtype(), site.shape(1))


def _gather_nd(site: Site) -> Fact:
    data, indices = site.shape(0), site.shape(1)
    if data is None or not indices or not isinstance(indices[-1], int):
        return Fact(site.dtype())
    picked = int(site.attr("batch_dims", 0)) + indices[-1]
    if picked > len(data):
        raise Contradiction
    return Fact(site.dtype(), (*indices[:-1], *data[picked:]))


def _concat(site: Site) -> Fact:
    shapes = [site.shape(i) for i in range(len(site.inputs))]
    dtype = next((f.dtype for f in site.inputs if f is not None and f.dtype is not None), None)
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return Fact(dtype)
    rank = len(known[0])
    if any(len(shape) != rank for shape in known):
        raise Contradiction
    axis = axis_of(int(site.attr("axis", 1)), rank)
    length: Dim = site.fresh(True) if len(known) < len(shapes) else 0
    for shape in known if len(known) == len(shapes) else ():
        length = length + shape[axis]
    made = tuple(length if i == axis else _agreed(known, i) for i in range(rank))
    return _concat_content(site, axis, Fact(dtype, made))


def _agreed(shapes: Sequence[Shape], axis: int) -> Dim:
    """A size that all inputs must have: a number where one of them says so."""
    sizes = {shape[axis] for shape in shapes}
    known = {size for size in sizes if isinstance(size, int)}
    if len(known) > 1:
        raise Contradiction
    return known.pop() if known else shapes[0][axis]


def _concat_content(site: Site, axis: int, fact: Fact) -> Fact:
    if fact.count is None or fact.count > MOST_ELEMENTS:
        return fact
    if all(part is None or part.content is None for part in site.inputs):
        return fact
    parts: list[Any] = []
    for index in range(len(site.inputs)):
        site.elements(index)
        cells = grid(site.fact(index))
        if cells is None:
            return fact
        parts.append(cells)
    return from_grid(fact.dtype, np.concatenate(parts, axis))


def _split(site: Site) -> Sequence[Fact]:
    shape, count = site.shape(), len(site.node.outputs)
    if shape is None:
        return [Fact(site.dtype())] * count
    axis = axis_of(int(site.attr("axis", 0)), len(shape))
    given = site.attr("split") if site.version < 13 else site.elements(1)
    sizes: Sequence[Dim]
    if given is not None:
        if len(given) != count:
            raise Contradiction
        sizes = [size if not isinstance(size, int) else int(size) for size in given]
    elif site.has(1):
        sizes = site.sizes(count)
    else:
        sizes = _even(shape[axis], count, site)
    return _parts(site, shape, axis, sizes)


def _even(size: Dim, count: int, site: Site) -> Sequence[Dim]:
    """Equal parts; with `num_outputs` (opset 18) the last one may be smaller."""
    whole = dims.exact(size, count)
    if whole is not None:
        return [whole] * count
    if site.version < 18 and isinstance(size, int):
        raise Contradiction
    part = dims.ceil_div(size, count)
    if not isinstance(size, int):
        return [dims.floor_div(size, count)] * count if site.version < 18 else site.sizes(count)
    last = size - part * (count - 1)
    return (
        [*[part] * (count - 1), last] if isinstance(last, int) and last >= 0 else site.sizes(count)
    )


def _parts(site: Site, shape: Shape, axis: int, sizes: Sequence[Dim]) -> Sequence[Fact]:
    made = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
    cells, steps = grid(site.fact(0)), numbers(sizes)
    if cells is None or steps is None or sum(steps) != cells.shape[axis]:
        return [Fact(site.dtype(), part) for part in made]
    ends = list(np.cumsum(steps))[:-1]
    return [from_grid(site.dtype(), part) for part in np.split(cells, ends, axis)]


def _slice(site: Site) -> Fact:
    shape = site.shape()
    if shape is None:
        return Fact(site.dtype())
    bounds = _bounds(site, len(shape))
    if bounds is None:
        return Fact(site.dtype(), site.sizes(len(shape)))
    starts, ends, axes, steps = bounds
    made = list(shape)
    cells = grid(site.fact(0))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == 0:
            raise Contradiction
        size = sliced(shape[axis], start, end, step)
        made[axis] = site.fresh(True) if size is None else size
        cells = _cut(cells, start, end, axis, step)
    return Fact(site.dtype(), tuple(made)) if cells is None else from_grid(site.dtype(), cells)


def _cut(cells: Any, start: Dim, end: Dim, axis: int, step: Dim) -> Any:
    """The contents that are left, where it is known which."""
    bounds = numbers((start, end, step))
    if cells is None or bounds is None:
        return None
    return np.take(cells, np.array(indices(cells.shape[axis], *bounds), np.int64), axis)


def _bounds(
    site: Site, rank: int
) -> tuple[Sequence[Dim], Sequence[Dim], Sequence[int], Sequence[Dim]] | None:
    """Starts, ends, axes and steps; None where it is not known which axes are cut."""
    if site.version < 10:
        starts: Sequence[Dim] = [int(v) for v in site.attr("starts", ())]
        ends: Sequence[Dim] = [int(v) for v in site.attr("ends", ())]
        given = site.attr("axes")
        axes: Sequence[int] = range(len(starts)) if given is None else [int(axis) for axis in given]
        steps: Sequence[Dim] = [1] * len(starts)
    else:
        first, last = site.elements(1), site.elements(2)
        chosen = site.ints(3) if site.has(3) else None
        by = site.elements(4) if site.has(4) else None
        if first is None or last is None or (site.has(3) and chosen is None):
            return None
        if site.has(4) and by is None:
            return None
        starts, ends = first, last
        axes = range(len(starts)) if chosen is None else chosen
        steps = [1] * len(starts) if by is None else by
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise Contradiction
    return starts, ends, axes_of(axes, rank), steps


def _pad(site: Site) -> Fact:
    shape = site.shape()
    if shape is None:
        return Fact(site.dtype())
    if site.version < 11:
        given = site.attr("pads", site.attr("paddings"))
        pads: Sequence[Dim] | None = None if given is None else [int(p) for p in given]
    else:
        pads = site.elements(1)
    axes: Sequence[int] | None = range(len(shape))
    if site.version >= 18 and site.has(3):
        chosen = site.ints(3)
        axes = None if chosen is None else axes_of(chosen, len(shape))
    if pads is None or axes is None:
        return Fact(site.dtype(), site.sizes(len(shape)))
    if len(pads) != 2 * len(axes):
        raise Contradiction
    made = list(shape)
    for i, axis in enumerate(axes):
        made[axis] = shape[axis] + pads[i] + pads[i + len(axes)]
    if any(isinstance(size, int) and size < 0 for size in made):
        raise Contradiction
    return Fact(site.dtype(), tuple(made))


def _top_k(site: Site) -> Sequence[Fact]:
    shape = site.shape()
    if shape is None:
        return [Fact(site.dtype()), Fact(DataType.INT64)]
    axis = axis_of(int(site.attr("axis", -1)), len(shape))
    wanted = [int(site.attr("k", 0))] if site.version < 10 else site.elements(1)
    size = wanted[0] if wanted is not None and len(wanted) == 1 else site.fresh(True)
    made = (*shape[:axis], size, *shape[axis + 1 :])
    return [Fact(site.dtype(), made), Fact(DataType.INT64, made)]


def _like_data(site: Site) -> Fact:
    return Fact(site.dtype(), site.shape())


RULES: Rules = {
    "Gather": _gather,
    "GatherElements": _like_indices,
    "GatherND": _gather_nd,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "TopK": _top_k,
    "Scatter": _like_data,
    "ScatterElements": _like_data,
    "ScatterND": _like_data,
    "TensorScatter": _like_data,
    "ReverseSequence": _like_data,
}
