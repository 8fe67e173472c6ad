"""Recipes for operators that select, scatter and join elements."""

from __future__ import annotations

import math

from tests.random_graphs.builder import (
    AttributeValue,
    Builder,
    Unfit,
    Val,
    fixed,
    is_fixed,
)
from tests.random_graphs.elementwise import Recipe
from tests.random_graphs.movement import anything, axis_of


def concat(b: Builder) -> Val:
    x = anything(b)
    axis = axis_of(b, x)
    at = axis % x.rank

    def fits(v: Val) -> bool:
        rest = [s for i, s in enumerate(v.shape) if i != at]
        same = [s for i, s in enumerate(x.shape) if i != at]
        return v.dtype == x.dtype and v.rank == x.rank and rest == same

    parts = [x, *(b.pick(fits) for _ in range(b.rng.randrange(3)))]
    if all(map(is_fixed, x.shape)) and x.dtype == "float" and b.chance(3):
        parts.append(
            b.weights(*(s[0] if i != at else b.rng.randrange(3) for i, s in enumerate(x.shape)))
        )
    size = tuple(sum(part.shape[at][w] for part in parts) for w in range(3))
    shape = (*x.shape[:at], size, *x.shape[at + 1 :])
    bound, error = max(p.bound for p in parts), max(p.error for p in parts)
    return b.node("Concat", parts, shape, dtype=x.dtype, bound=bound, error=error, axis=axis)


def split(b: Builder) -> Val:
    """Into parts, which are sometimes put together again."""
    x = b.pick(lambda v: any(is_fixed(s) and s[0] >= 2 for s in v.shape) and v.dtype == "float")
    at = b.rng.choice([i for i, s in enumerate(x.shape) if is_fixed(s) and s[0] >= 2])
    first = b.rng.randrange(1, x.shape[at][0])
    sizes = [first, x.shape[at][0] - first]
    attributes: dict[str, AttributeValue] = {"axis": at}
    inputs = [x]
    if b.opset < 13:
        attributes["split"] = sizes
    elif sizes[0] == sizes[1] and b.opset >= 18 and b.chance(2):
        attributes["num_outputs"] = 2
    else:
        inputs.append(b.ints(*sizes))
    shapes = [(*x.shape[:at], *fixed(size), *x.shape[at + 1 :]) for size in sizes]
    parts = [Val(b.names.new(), x.dtype, shape, x.bound, x.error) for shape in shapes]
    b.line(parts, "Split", inputs, attributes)
    if b.chance(2):
        swapped = parts[::-1] if b.chance(3) else parts
        return b.node("Concat", swapped, x.shape, x, axis=at)
    return parts[0]


def slice_(b: Builder) -> Val:
    x = anything(b)
    at = b.rng.randrange(x.rank)
    start, end, step = b.rng.choice(
        [(0, 2**62, 1), (1, 2**31 - 1, 1), (0, 2, 1), (0, -1, 1), (-1, -(2**62), -1), (0, 2**62, 2)]
    )
    size = tuple(len(range(n)[start:end:step] if n else ()) for n in x.shape[at])
    if 0 in size:
        raise Unfit
    shape = (*x.shape[:at], size, *x.shape[at + 1 :])
    inputs = [x, b.ints(start), b.ints(end), b.ints(at if b.chance(2) else at - x.rank)]
    return b.node("Slice", inputs if step == 1 else [*inputs, b.ints(step)], shape, x)


def gather(b: Builder) -> Val:
    x = anything(b)
    at = axis_of(b, x)
    if min(x.shape[at]) == 0:
        raise Unfit
    if b.chance(2):
        index, dims = b.constant("int64", (), [b.rng.choice([0, -1])]), fixed()
    elif is_fixed(x.shape[at]) and b.chance(2):  # all of them in order
        index, dims = b.ints(*range(x.shape[at][0])), fixed(x.shape[at][0])
    else:
        index, dims = b.ints(0, min(x.shape[at]) - 1, -1), fixed(3)
    shape = (*x.shape[:at], *dims, *x.shape[at % x.rank + 1 :])
    return b.node("Gather", [x, index], shape, x, axis=at)


def gather_elements(b: Builder) -> Val:
    x = b.pick(lambda v: 0 < v.rank < 4 and all(map(is_fixed, v.shape)) and v.dtype == "float")
    sizes = [s[0] for s in x.shape]
    if not math.prod(sizes):
        raise Unfit
    index = b.constant(
        "int64", sizes, [b.rng.randrange(sizes[-1]) for _ in range(math.prod(sizes))]
    )
    if b.chance(2):
        updates = b.floats(x.rank)
        if updates.shape != x.shape:
            raise Unfit
        order = [i % sizes[-1] for i in range(math.prod(sizes))]  # each place is written once
        index = b.constant("int64", sizes, order)
        bound, error = max(x.bound, updates.bound), max(x.error, updates.error)
        inputs = [x, index, updates]
        return b.node("ScatterElements", inputs, x.shape, bound=bound, error=error, axis=-1)
    return b.node("GatherElements", [x, index], x.shape, x, axis=-1)


def gather_nd(b: Builder) -> Val:
    x = b.pick(lambda v: v.rank >= 2 and v.dtype == "float" and min(map(min, v.shape)) > 0)
    index = b.constant("int64", [2, 1], [0, -1])
    shape = (*fixed(2), *x.shape[1:])
    y = b.node("GatherND", [x, index], shape, x)
    if b.chance(2) and min(x.shape[0]) >= 2:
        bound, error = x.bound, x.error
        return b.node("ScatterND", [x, index, y], x.shape, bound=bound, error=error)
    return y


def triangle(b: Builder) -> Val:
    b.since(14)
    x = b.pick(lambda v: v.rank >= 2 and v.dtype == "float")
    return b.node("Trilu", [x], x.shape, x, upper=b.rng.randrange(2))


def reverse(b: Builder) -> Val:
    x = b.pick(lambda v: v.rank >= 2 and v.dtype == "float" and is_fixed(v.shape[0]))
    length = min(x.shape[1])
    if length < 1 or not x.shape[0][0]:
        raise Unfit
    lengths = b.ints(*(b.rng.randrange(1, length + 1) for _ in range(x.shape[0][0])))
    return b.node("ReverseSequence", [x, lengths], x.shape, x, batch_axis=0, time_axis=1)


RECIPES: list[tuple[int, Recipe]] = [
    (3, concat),
    (3, split),
    (4, slice_),
    (3, gather),
    (1, gather_elements),
    (1, gather_nd),
    (1, triangle),
    (1, reverse),
]
