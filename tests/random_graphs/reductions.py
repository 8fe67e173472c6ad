"""Recipes for operators that reduce or normalize along axes."""

from __future__ import annotations

import math

from tests.random_graphs.builder import (
    UNIT,
    Builder,
    Sizes,
    Val,
    fixed,
)
from tests.random_graphs.elementwise import Recipe
from tests.random_graphs.layers import image, last_axis


def reduced_sizes(shape: Sizes, axes: list[int], keep: bool) -> Sizes:
    return tuple(
        size if axis not in axes else fixed(1)[0]
        for axis, size in enumerate(shape)
        if keep or axis not in axes
    )


def reduce_node(b: Builder, op: str, x: Val, axes: list[int], keep: bool = True) -> Val:
    """A reduction, its axes where the opset wants them."""
    terms = max(math.prod(x.shape[a][w] for a in axes) for w in range(3))
    bound, error = {
        "ReduceSum": (terms * x.bound, terms * x.error + terms**2 * UNIT * x.bound),
        "ReduceMean": (x.bound, x.error + terms * UNIT * x.bound),
        "ReduceMax": (x.bound, x.error),
        "ReduceMin": (x.bound, x.error),
    }.get(op, (math.inf, math.inf))
    shape = reduced_sizes(x.shape, axes, keep)
    written = [a - x.rank for a in axes] if b.chance(3) else axes
    if b.opset < (13 if op == "ReduceSum" else 18):
        inputs, extra = [x], {"axes": written}
    else:
        inputs, extra = [x, b.ints(*written)], dict[str, list[int]]()
    return b.node(op, inputs, shape, bound=bound, error=error, attributes=extra, keepdims=int(keep))


def reduction(b: Builder) -> Val:
    x = b.pick(lambda v: v.dtype == "float" and v.rank > 0 and all(min(s) > 0 for s in v.shape))
    op = b.rng.choice(
        [
            *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1"),
            *("ReduceL2", "ReduceLogSumExp", "ReduceSumSquare", "ReduceLogSum"),
        ]
    )
    axes = sorted(b.rng.sample(range(x.rank), b.rng.randrange(1, min(x.rank, 2) + 1)))
    return reduce_node(b, op, x, axes, b.chance(2))


def arg(b: Builder) -> Val:
    x = b.pick(lambda v: v.dtype == "float" and v.rank > 0 and all(min(s) > 0 for s in v.shape))
    axis = b.rng.randrange(x.rank)
    op = b.rng.choice(["ArgMax", "ArgMin"])
    shape = reduced_sizes(x.shape, [axis], True)
    return b.node(op, [x], shape, dtype="int64", axis=axis)


def top(b: Builder) -> Val:
    x = b.pick(lambda v: v.dtype == "float" and v.rank > 0 and min(v.shape[-1]) >= 2)
    shape = (*x.shape[:-1], *fixed(2))
    best = Val(b.names.new(), "float", shape, x.bound, x.error)
    index = Val(b.names.new(), "int64", shape)
    b.line([best, index], "TopK", [x, b.ints(2)], {})
    return best


def softmax(b: Builder) -> Val:
    x = b.pick(lambda v: v.dtype == "float" and v.rank > 0 and min(v.shape[-1]) > 0)
    op = b.rng.choice(["Softmax", "Softmax", "LogSoftmax", "Hardmax"])
    axis = -1 if b.opset < 13 else b.rng.choice([-1, b.rng.randrange(x.rank)])
    bound, error = (1.0, 2 * x.error + 64 * UNIT) if op == "Softmax" else (math.inf, math.inf)
    return b.node(op, [x], x.shape, bound=bound, error=error, axis=axis)


def normalization(b: Builder) -> Val:
    """Of the last axis, of each instance, of groups, over channels."""
    x = last_axis(b)
    size = x.shape[-1][0]
    kind = b.rng.randrange(5)
    if kind == 0:
        b.since(17)
        inputs = [x, b.weights(size)] + ([b.weights(size)] if b.chance(2) else [])
        return b.node("LayerNormalization", inputs, x.shape, axis=-1)
    if kind == 1:
        b.since(23)
        return b.node("RMSNormalization", [x, b.weights(size)], x.shape, axis=-1)
    if kind == 2:
        return b.node("LpNormalization", [x], x.shape, p=b.rng.choice([1, 2]), axis=-1)
    y = image(b)
    channels = y.shape[1][0]
    if kind == 3:
        inputs = [y, b.weights(channels), b.weights(channels)]
        return b.node("InstanceNormalization", inputs, y.shape)
    return b.node("LRN", [y], y.shape, size=3)


def one_hot(b: Builder) -> Val:
    x = b.pick(lambda v: v.dtype == "int64" and 0 < v.rank < 4)
    depth = b.constant("int64", (), [3])
    values = b.constant("float", [2], [0.0, 1.0])
    return b.node("OneHot", [x, depth, values], (*x.shape, *fixed(3)), bound=1, error=x.error)


RECIPES: list[tuple[int, Recipe]] = [
    (4, reduction),
    (1, arg),
    (1, top),
    (3, softmax),
    (3, normalization),
    (1, one_hot),
]
