"""Operators that make tensors of shapes, or shapes of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from onnxslim.analyses.facts import dims
from onnxslim.analyses.facts.elementwise import broadcast
from onnxslim.analyses.facts.fact import (
    LIMITS,
    MOST_ELEMENTS,
    Contradiction,
    Fact,
    Rules,
    Shape,
    Site,
    from_grid,
    grid,
    numbers,
)
from onnxslim.ir import DataType


def _shape(site: Site) -> Fact:
    """The sizes between start and end, which are clamped like the bounds of a slice."""
    shape = site.shape()
    if shape is None:
        return Fact(DataType.INT64, (site.fresh(True),))
    end = site.attr("end")
    found = shape[slice(int(site.attr("start", 0)), None if end is None else int(end))]
    return Fact(DataType.INT64, (len(found),), found)


def _size(site: Site) -> Fact:
    shape = site.shape()
    return Fact(DataType.INT64, (), None if shape is None else (dims.total(shape),))


def _target(site: Site, index: int) -> Shape | None:
    """A shape that an input holds; its sizes are unknown where only its length is known."""
    content = site.elements(index)
    if content is not None:
        if any(isinstance(size, int) and size < 0 for size in content):
            raise Contradiction
        return content
    sizes = numbers(site.shape(index))
    return site.sizes(sizes[0]) if sizes is not None and len(sizes) == 1 and sizes[0] < 32 else None


def _constant_of_shape(site: Site) -> Fact:
    value = site.attr("value")
    dtype = DataType.FLOAT if value is None else value.dtype
    shape = _target(site, 0)
    sizes = numbers(shape)
    if value is None or sizes is None or dtype not in LIMITS or prod(sizes) > MOST_ELEMENTS:
        return Fact(dtype, shape)
    element = int(value.numpy().ravel()[0])
    return Fact(dtype, shape, (element,) * prod(sizes))


def _expand(site: Site) -> Fact:
    source, target = site.shape(), _target(site, 1)
    if source is None or target is None:
        return Fact(site.dtype())
    shape = broadcast([source, target])
    cells, sizes = grid(site.fact(0)), numbers(shape)
    if cells is None or sizes is None or prod(sizes) > MOST_ELEMENTS:
        return Fact(site.dtype(), shape)
    rank = max(len(sizes), cells.ndim)
    front = (1,) * (rank - cells.ndim)
    return from_grid(site.dtype(), np.broadcast_to(cells.reshape((*front, *cells.shape)), sizes))


def _tile(site: Site) -> Fact:
    shape = site.shape()
    if site.version < 6 or shape is None:
        return Fact(site.dtype(), None if shape is None else site.sizes(len(shape)))
    repeats = site.elements(1)
    if repeats is None or len(repeats) != len(shape):
        return Fact(site.dtype(), site.sizes(len(shape)))
    return Fact(site.dtype(), tuple(a * b for a, b in zip(shape, repeats, strict=True)))


def _range(site: Site) -> Fact:
    """max(ceil((limit - start) / delta), 0) numbers; integers only, floats round as they like."""
    dtype = site.dtype()
    ends = [site.elements(i) for i in range(3)] if dtype in LIMITS else []
    if len(ends) != 3 or any(end is None or len(end) != 1 for end in ends):
        return Fact(dtype, (site.fresh(True),))
    start, limit, step = (end[0] for end in ends if end is not None)
    if not isinstance(step, int) or step == 0:
        return Fact(dtype, (site.fresh(True),))
    span, by = (limit - start, step) if step > 0 else (start - limit, -step)
    count = dims.maximum(dims.ceil_div(span, by), 0)
    if not isinstance(count, int) or count > MOST_ELEMENTS:
        return Fact(dtype, (count,))
    return Fact(dtype, (count,), tuple(start + i * step for i in range(count)))


def _eye_like(site: Site) -> Fact:
    dtype = site.attr("dtype")
    return Fact(site.dtype() if dtype is None else DataType(int(dtype)), site.shape())


def _non_zero(site: Site) -> Fact:
    shape = site.shape()
    rank = site.fresh(True) if shape is None else max(len(shape), 1)
    if shape is not None and not shape:
        return Fact(DataType.INT64, site.sizes(2))  # a scalar: runtimes differ
    return Fact(DataType.INT64, (rank, site.fresh(True)))


def _one_hot(site: Site) -> Fact:
    shape, depth = site.shape(0), site.elements(1)
    if shape is None:
        return Fact(site.dtype(2))
    axis = int(site.attr("axis", -1))
    rank = len(shape) + 1
    if not -rank <= axis < rank:
        raise Contradiction
    size = depth[0] if depth is not None and len(depth) == 1 else site.fresh(True)
    made = list(shape)
    made.insert(axis % rank, size)
    return Fact(site.dtype(2), tuple(made))


def _random_like(site: Site) -> Fact:
    dtype = site.attr("dtype")
    return Fact(site.dtype() if dtype is None else DataType(int(dtype)), site.shape())


def _random(site: Site) -> Sequence[Fact]:
    shape: Sequence[int] = site.attr("shape", ())
    return [Fact(DataType(int(site.attr("dtype", 1))), tuple(int(size) for size in shape))]


RULES: Rules = {
    "Shape": _shape,
    "Size": _size,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Tile": _tile,
    "Range": _range,
    "EyeLike": _eye_like,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "Bernoulli": _random_like,
    "RandomNormalLike": _random_like,
    "RandomUniformLike": _random_like,
    "RandomNormal": _random,
    "RandomUniform": _random,
}
