"""Recipes for arithmetic on shapes, and for operators whose shape it decides."""

from __future__ import annotations

from collections.abc import Callable

from tests.random_graphs.builder import (
    WORLDS,
    AttributeValue,
    Builder,
    Sizes,
    Unfit,
    Val,
    broadcast,
    by_world,
    fixed,
    is_fixed,
    product,
)
from tests.random_graphs.elementwise import Recipe
from tests.random_graphs.movement import reshaped

Content = tuple[tuple[int, ...], ...]


def vector(b: Builder) -> Val:
    """A rank-1 integer value whose elements are known in each world."""
    return b.pick(lambda v: v.content is not None and v.rank == 1)


def scalar(b: Builder) -> Val:
    return b.pick(lambda v: v.content is not None and v.rank == 0)


def known(
    b: Builder, op: str, inputs: list[Val], content: Content, rank: int = 1, **kw: AttributeValue
) -> Val:
    """A node whose result is known."""
    if any(abs(n) > 10_000 for row in content for n in row):
        raise Unfit
    shape: Sizes = (tuple(len(row) for row in content),) if rank else ()
    return b.node(
        op, inputs, shape, dtype="int64", bound=1e4, error=0.0, content=content, attributes=kw
    )


def per_world(function: Callable[[int], tuple[int, ...]]) -> Content:
    return tuple(function(world) for world in range(len(WORLDS)))


def shape(b: Builder, x: Val | None = None) -> Val:
    x = x or b.pick(lambda v: v.rank > 0)
    if b.opset >= 15 and b.chance(4):
        start = b.rng.randrange(x.rank)
        part = per_world(lambda w: tuple(s[w] for s in x.shape[start:]))
        return known(b, "Shape", [x], part, start=start)
    return known(b, "Shape", [x], per_world(lambda w: tuple(s[w] for s in x.shape)))


def size(b: Builder) -> Val:
    x = b.pick(lambda v: True)
    return known(b, "Size", [x], per_world(lambda w: (product(x.shape)[w],)), rank=0)


def pick_size(b: Builder, v: Val | None = None) -> Val:
    """One element of a vector."""
    v = v or vector(b)
    assert v.content is not None
    content = v.content
    least = min(map(len, content))
    if not least:
        raise Unfit
    index = b.rng.randrange(-least, least)
    found = per_world(lambda w: (content[w][index],))
    if b.chance(2):
        return known(b, "Gather", [v, b.constant("int64", (), [index])], found, rank=0, axis=0)
    if b.chance(2) or index < 0:
        return known(b, "Gather", [v, b.ints(index)], found, axis=0)
    return known(b, "Slice", [v, b.ints(index), b.ints(index + 1), b.ints(0)], found)


def as_vector(b: Builder, v: Val) -> Val:
    """A scalar as a vector of one element."""
    assert v.content is not None
    if v.rank == 1:
        return v
    if b.chance(4):
        return known(b, "Reshape", [v, b.ints(-1)], v.content)
    if b.opset < 13:
        return known(b, "Unsqueeze", [v], v.content, axes=[0])
    return known(b, "Unsqueeze", [v, b.ints(0)], v.content)


def arithmetic(b: Builder) -> Val:
    """A sum, product, quotient of sizes."""
    one = b.pick(lambda v: v.content is not None and v.rank <= 1)
    assert one.content is not None
    mine = one.content
    op = b.rng.choice(["Add", "Sub", "Mul", "Div", "Max", "Mod"])
    if op == "Max":
        b.since(12)
    number = b.rng.choice([1, 2, 3, 4])
    functions: dict[str, Callable[[int], int]] = {
        "Add": lambda n: n + number,
        "Sub": lambda n: n - number,
        "Mul": lambda n: n * number,
        "Div": lambda n: abs(n) // number * (1 if n >= 0 else -1),
        "Max": lambda n: max(n, number),
        "Mod": lambda n: n % number,
    }
    found = per_world(lambda w: tuple(map(functions[op], mine[w])))
    return known(b, op, [one, b.constant("int64", (), [number])], found, one.rank)


def multiply(b: Builder) -> Val:
    one, other = scalar(b), scalar(b)
    assert one.content is not None
    assert other.content is not None
    pairs = list(zip(one.content, other.content, strict=True))
    return known(b, "Mul", [one, other], tuple((x[0] * y[0],) for x, y in pairs), rank=0)


def through_float(b: Builder) -> Val:
    """Cast to float, a little arithmetic, and back."""
    one = b.pick(lambda v: v.content is not None and v.rank <= 1)
    x = b.node("Cast", [one], one.shape, dtype="float", to=1)
    x = b.node("Mul", [x, b.scalar(2.0)], one.shape)
    x = b.node(b.rng.choice(["Floor", "Ceil"]), [x], one.shape)
    assert one.content is not None
    doubled = tuple(tuple(2 * n for n in row) for row in one.content)
    return known(b, "Cast", [x], doubled, one.rank, to=7)


def reduced(b: Builder) -> Val:
    v = vector(b)
    assert v.content is not None
    content = v.content
    found = per_world(lambda w: (product(tuple((n, n, n) for n in content[w]))[0],))
    return known(b, "ReduceProd", [v], found, rank=0, keepdims=0)


def target(b: Builder, x: Val) -> Val:
    """A vector that is often a valid target for Reshape: sizes of x, products of them, a -1."""
    sizes = shape(b, x)
    if sizes.content is None or len(sizes.content[0]) != x.rank:
        raise Unfit
    parts: list[Val] = []
    merged = b.rng.randrange(x.rank + 1)
    for axis, dim in enumerate(x.shape):
        if axis == merged:
            parts.append(b.ints(-1))
        elif axis == merged + 1:
            continue  # the -1 takes it in
        elif is_fixed(dim) and b.chance(2):
            parts.append(b.ints(dim[0]))
        else:
            row = tuple((d,) for d in dim)
            one = known(b, "Gather", [sizes, b.constant("int64", (), [axis])], row, rank=0, axis=0)
            parts.append(as_vector(b, one))
    content = per_world(lambda w: tuple(p.content[w][0] for p in parts if p.content))
    return known(b, "Concat", parts, content, axis=0) if parts else b.ints(-1)


def reshape(b: Builder) -> Val:
    x = b.pick(lambda v: v.rank > 0 and v.dtype in ("float", "bool"))
    to = target(b, x)
    assert to.content is not None
    return b.node("Reshape", [x, to], reshaped(x.shape, to.content), x)


def reshape_like(b: Builder) -> Val:
    """To the shape of another value with as many elements, or of itself."""
    x = b.pick(lambda v: v.rank > 0 and v.dtype == "float")
    other = b.pick(lambda v: v.rank > 0 and product(v.shape) == product(x.shape))
    to = known(b, "Shape", [other], per_world(lambda w: tuple(s[w] for s in other.shape)))
    if b.chance(3) and to.content is not None and b.opset >= 14:
        rows = reshaped(x.shape, to.content, allowzero=True)
        return b.node("Reshape", [x, to], rows, x, allowzero=1)
    return b.node("Reshape", [x, to], other.shape, x)


def expand(b: Builder) -> Val:
    """To the shape of another value, or of itself."""
    x = b.pick(lambda v: v.dtype in ("float", "bool"))
    other = b.pick(lambda v: v.rank > 0)
    wide = broadcast(x.shape, other.shape)
    to = known(b, "Shape", [other], per_world(lambda w: tuple(s[w] for s in other.shape)))
    return b.node("Expand", [x, to], wide, x)


def filled(b: Builder) -> Val:
    """ConstantOfShape of sizes that are known, and not negative."""
    v = b.pick(lambda v: v.content is not None and v.rank == 1 and len(v.content[0]) <= 4)
    assert v.content is not None
    found = v.content
    dims = by_world(lambda w: found[w])
    if any(n > 12 for row in v.content for n in row):
        raise Unfit
    number = b.rng.choice(["{0.0}", "{1.0}", "{0.5}"])
    return b.node("ConstantOfShape", [v], dims, bound=1, error=0.0, value=f"float[1] {number}")


def counted(b: Builder) -> Val:
    """Range up to a size, as floats."""
    v = scalar(b)
    assert v.content is not None
    if any(not 0 <= row[0] <= 64 for row in v.content):
        raise Unfit
    zero, one = b.constant("int64", (), [0]), b.constant("int64", (), [1])
    content = per_world(lambda w: tuple(range((v.content or ())[w][0])))
    found = known(b, "Range", [zero, v, one], content)
    return b.node("Cast", [found], found.shape, bound=64, error=0.0, to=1)


def sliced(b: Builder) -> Val:
    """Up to a computed size of the axis, or of another."""
    x = b.pick(lambda v: v.rank > 0 and v.dtype == "float")
    at = b.rng.randrange(x.rank)
    end = as_vector(b, pick_size(b))
    assert end.content is not None
    ends = [row[0] for row in end.content]
    dim = tuple(len(range(n)[0:e]) for n, e in zip(x.shape[at], ends, strict=True))
    if 0 in dim:
        raise Unfit
    result = (*x.shape[:at], dim, *x.shape[at + 1 :])
    return b.node("Slice", [x, b.ints(0), end, b.ints(at)], result, x)


def selected(b: Builder) -> Val:
    """Where on shapes, as exporters write it for Expand: -1 becomes the size."""
    x = b.pick(lambda v: v.rank > 0 and v.dtype == "float")
    sizes = shape(b, x)
    if sizes.content is None or len(sizes.content[0]) != x.rank:
        raise Unfit
    wanted = b.ints(*(-1 for _ in x.shape))
    minus = b.ints(*(-1 for _ in x.shape))
    same = b.node("Equal", [wanted, minus], fixed(x.rank), dtype="bool", bound=1, error=0.0)
    to = known(b, "Where", [same, sizes, wanted], sizes.content)
    return b.node("Expand", [x, to], x.shape, x)


RECIPES: list[tuple[int, Recipe]] = [
    (4, shape),
    (1, size),
    (4, pick_size),
    (2, arithmetic),
    (1, multiply),
    (1, through_float),
    (1, reduced),
    (6, reshape),
    (2, reshape_like),
    (3, expand),
    (2, filled),
    (2, counted),
    (3, sliced),
    (1, selected),
]
