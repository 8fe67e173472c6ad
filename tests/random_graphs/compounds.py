"""Recipes for several nodes in a row, as exporters write them, that can become fewer."""

from __future__ import annotations

from tests.random_graphs.builder import UNIT, Builder, Unfit, Val, fixed, is_fixed, product
from tests.random_graphs.elementwise import SMOOTH, Recipe, affine, combine, unary
from tests.random_graphs.layers import last_axis, summed, tail
from tests.random_graphs.movement import anything, reshape, transpose
from tests.random_graphs.reductions import reduce_node


def slice_of_slice(b: Builder) -> Val:
    """Bounds that are inside, beyond or behind the end, on one axis or two."""
    x = b.pick(lambda v: v.rank >= 2 and v.dtype == "float" and min(map(min, v.shape)) >= 2)
    axis = b.rng.randrange(x.rank)
    for _ in range(2):
        start, end = b.rng.choice([(0, 3), (1, 9), (-2, 9), (0, -1), (1, -1), (-3, 4)])
        size = tuple(len(range(n)[start:end]) for n in x.shape[axis])
        if 0 in size:
            raise Unfit
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        inputs = [x, b.ints(start), b.ints(end), b.ints(axis)]
        x = b.node("Slice", inputs, shape, x)
        axis = axis if b.chance(2) else b.rng.randrange(x.rank)
    return x


def parts_of_concat(b: Builder) -> Val:
    """Slices of neighbouring, swapped or repeated parts, put together again."""
    x = b.pick(lambda v: v.rank > 0 and any(is_fixed(s) and s[0] >= 2 for s in v.shape))
    at = b.rng.choice([i for i, s in enumerate(x.shape) if is_fixed(s) and s[0] >= 2])
    size = x.shape[at][0]
    cut = b.rng.randrange(1, size)
    bounds = [(0, cut), (cut, size)]
    if b.chance(3):
        b.rng.shuffle(bounds)
    parts: list[Val] = []
    for start, end in bounds:
        shape = (*x.shape[:at], *fixed(end - start), *x.shape[at + 1 :])
        parts.append(b.node("Slice", [x, b.ints(start), b.ints(end), b.ints(at)], shape, x))
    return b.node("Concat", parts, x.shape, x, axis=at)


def concat_of_concat(b: Builder) -> Val:
    x = anything(b)
    axis = b.rng.randrange(x.rank)
    for _ in range(2):
        size = tuple(2 * n for n in x.shape[axis])
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        x = b.node("Concat", [x, x], shape, x, axis=axis if b.chance(2) else axis - x.rank)
    return x


def one_part(b: Builder) -> Val:
    """A Split into one."""
    b.since(13)
    x = b.pick(lambda v: v.rank > 0 and is_fixed(v.shape[0]) and v.dtype == "float")
    part = Val(b.names.new(), x.dtype, x.shape, x.bound, x.error)
    b.line([part], "Split", [x, b.ints(x.shape[0][0])], {"axis": 0})
    return part


def expand_and_add(b: Builder) -> Val:
    """Something expanded to what it is added to anyway."""
    x = b.floats()
    if not x.rank:
        raise Unfit
    row = b.weights(x.shape[-1][0]) if is_fixed(x.shape[-1]) else b.weights(1)
    to = b.node("Shape", [x], fixed(x.rank), dtype="int64", bound=1e4, error=0.0)
    wide = b.node("Expand", [row, to], x.shape, bound=row.bound, error=0.0)
    return combine(b, b.rng.choice(["Add", "Mul"]), wide, x)


def around(b: Builder) -> Val:
    """Transpose or Reshape, functions of the elements, and back."""
    x = anything(b, 2)
    if x.dtype != "float":
        raise Unfit
    y = x
    axes = list(range(x.rank))
    b.rng.shuffle(axes)
    y = b.node("Transpose", [y], tuple(y.shape[a] for a in axes), y, perm=axes)
    for _ in range(b.rng.randrange(3)):
        y = unary(b, y, b.rng.choice(list(SMOOTH)[:8])) if b.chance(2) else affine(b, y)
    if y.rank != x.rank:
        raise Unfit
    back = [axes.index(a) for a in range(x.rank)]
    return b.node("Transpose", [y], tuple(y.shape[a] for a in back), y, perm=back)


def rows(b: Builder) -> Val:
    """A product on a matrix of rows, between two views."""
    x = last_axis(b)
    size, out = x.shape[-1][0], b.rng.choice([2, 4])
    if x.rank < 3:
        raise Unfit
    lead = [s[0] if is_fixed(s) else 0 for s in x.shape[:-1]]
    if sum(n == 0 for n in lead) > 1 or lead[0] != 0:
        raise Unfit
    count = product(x.shape[:-1])
    flat = b.node("Reshape", [x, b.ints(-1, size)], (count, *fixed(size)), x)
    bound, error = summed(flat, size)
    weights = b.weights(size, out)
    y = b.node("MatMul", [flat, weights], (count, *fixed(out)), bound=bound, error=error)
    y = tail(b, y)
    if y.rank != 2:
        raise Unfit
    target = [-1, *lead[1:], out]
    return b.node("Reshape", [y, b.ints(*target)], (*x.shape[:-1], *fixed(out)), y)


def packed(b: Builder) -> Val:
    """Three projections by one product, taken apart by views and Gathers; then scaled."""
    x = last_axis(b, 3)
    size = x.shape[-1][0]
    if size % 2 or any(min(s) < 1 for s in x.shape):
        raise Unfit
    bound, error = summed(x, size)
    wide = (*x.shape[:2], *fixed(3 * size))
    y = b.node("MatMul", [x, b.weights(size, 3 * size)], wide, bound=bound, error=error)
    if b.chance(2):
        y = combine(b, "Add", y, b.weights(3 * size))
    split = (*x.shape[:2], *fixed(3, 2, size // 2))
    y = b.node("Reshape", [y, b.ints(0, 0, 3, 2, size // 2)], split, y)
    perm = b.rng.choice([[2, 0, 3, 1, 4], [2, 0, 3, 1, 4], [2, 1, 0, 3, 4]])
    y = b.node("Transpose", [y], tuple(split[a] for a in perm), y, perm=perm)
    parts: list[Val] = []
    for index in range(3):
        number = b.constant("int64", (), [index])
        parts.append(b.node("Gather", [y, number], y.shape[1:], y, axis=0))
    if b.chance(2):
        parts[0] = combine(b, "Mul", parts[0], b.scalar(0.5))
    return combine(b, "Add", combine(b, "Add", parts[0], parts[1]), parts[2])


def viewed_and_scaled(b: Builder) -> Val:
    """A product, views, and then arithmetic with a number."""
    x = last_axis(b)
    size, out = x.shape[-1][0], b.rng.choice([2, 4])
    bound, error = summed(x, size)
    shape = (*x.shape[:-1], *fixed(out))
    y = b.node("MatMul", [x, b.weights(size, out)], shape, bound=bound, error=error)
    for _ in range(b.rng.randrange(1, 3)):
        y = b.rng.choice([transpose, reshape])(b, y)
    y = combine(b, b.rng.choice(["Mul", "Mul", "Add"]), y, b.scalar(b.rng.choice([0.5, 0.1, 2.0])))
    return unary(b, y, "Relu") if b.chance(2) else y


def length(b: Builder) -> Val:
    """The square root of a sum of squares, or only the sum."""
    x = b.floats()
    if not x.rank or any(min(s) < 1 for s in x.shape):
        raise Unfit
    square = combine(b, "Mul", x, x)
    total = reduce_node(b, "ReduceSum", square, [b.rng.randrange(x.rank)], b.chance(2))
    return total if b.chance(2) else b.node("Sqrt", [total], total.shape)


def constants(b: Builder) -> Val:
    """Arithmetic with constants, several in a row."""
    x = b.floats()
    for _ in range(b.rng.randrange(2, 5)):
        x = affine(b, x)
    return x


def added(b: Builder) -> Val:
    """A residual: the value, and something of it."""
    x = b.floats()
    y = affine(b, unary(b, x))
    if y.shape != x.shape:
        raise Unfit
    error = x.error + y.error + UNIT * (x.bound + y.bound)
    return b.node("Add", [x, y], x.shape, bound=x.bound + y.bound, error=error)


RECIPES: list[tuple[int, Recipe]] = [
    (2, slice_of_slice),
    (2, parts_of_concat),
    (2, concat_of_concat),
    (1, one_part),
    (2, expand_and_add),
    (4, around),
    (3, rows),
    (3, packed),
    (4, viewed_and_scaled),
    (1, length),
    (2, constants),
    (1, added),
]
