"""Recipes for operators that move, copy and select elements."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.random_graphs.builder import (
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


def anything(b: Builder, least: int = 1) -> Val:
    return b.pick(lambda v: v.rank >= least and v.dtype in ("float", "bool"))


def axis_of(b: Builder, x: Val, negative: bool = True) -> int:
    axis = b.rng.randrange(x.rank)
    return axis - x.rank if negative and b.chance(3) else axis


def transpose(b: Builder, x: Val | None = None) -> Val:
    x = x or anything(b, 2)
    if x.rank < 2:
        raise Unfit
    axes = list(range(x.rank))
    kind = b.rng.randrange(4)
    if kind == 0:
        axes[-1], axes[-2] = axes[-2], axes[-1]
    elif kind == 1:  # to channels last
        axes = [axes[0], *axes[2:], axes[1]]
    elif kind == 2:  # and back
        axes = [axes[0], axes[-1], *axes[1:-1]]
    else:
        b.rng.shuffle(axes)
    return b.node("Transpose", [x], tuple(x.shape[a] for a in axes), x, perm=axes)


def reshaped(shape: Sizes, target: Sequence[Sequence[int]], allowzero: bool = False) -> Sizes:
    """What Reshape gives, for the target in each world."""

    def one(world: int) -> list[int] | None:
        sizes = [size[world] for size in shape]
        result = list(target[world])
        for axis, size in enumerate(result):
            if size == 0 and not allowzero:
                if axis >= len(sizes):
                    return None
                result[axis] = sizes[axis]
        if -1 in result:
            rest = math.prod(size for size in result if size != -1)
            if result.count(-1) > 1 or not rest or math.prod(sizes) % rest:
                return None
            result[result.index(-1)] = math.prod(sizes) // rest
        return result if math.prod(result) == math.prod(sizes) else None

    return by_world(one)


def factors(b: Builder, number: int) -> list[int]:
    """Some numbers with that product."""
    result: list[int] = []
    while number > 1 and len(result) < 2:
        divisors = [d for d in range(2, number + 1) if number % d == 0]
        result.append(b.rng.choice(divisors))
        number //= result[-1]
    return [*result, number] if number > 1 or not result else result


def reshape(b: Builder, x: Val | None = None) -> Val:
    """To a constant target: merged axes, split axes, zeros and a -1."""
    x = x or anything(b)
    target: list[int] = []
    kind = b.rng.randrange(5)
    if kind == 0:
        target = [-1]
    elif kind == 1:
        target = [0, -1]
    elif kind == 2:  # what it is already
        target = [s[0] if is_fixed(s) else 0 for s in x.shape]
    else:
        for axis, size in enumerate(x.shape):
            if not is_fixed(size):
                target.append(0 if len(target) == axis else -1)
            else:
                target += [size[0]] if b.chance(2) else factors(b, size[0])
        if b.chance(2) and -1 not in target and target:
            target[b.rng.randrange(len(target))] = -1
    y = reshaped(x.shape, [target] * 3)
    return b.node("Reshape", [x, b.ints(*target)], y, x)


def flatten(b: Builder) -> Val:
    x = anything(b)
    axis = b.rng.randrange(x.rank + 1)
    parts = zip(product(x.shape[:axis]), product(x.shape[axis:]), strict=True)
    shape: Sizes = tuple(zip(*parts, strict=True))
    return b.node("Flatten", [x], shape, x, axis=axis)


def with_axes(b: Builder, op: str, x: Val, shape: Sizes, axes: list[int]) -> Val:
    """Squeeze or Unsqueeze: the axes are an input since opset 13."""
    if b.opset < 13:
        return b.node(op, [x], shape, x, axes=axes)
    return b.node(op, [x, b.ints(*axes)], shape, x)


def unsqueeze(b: Builder, x: Val | None = None) -> Val:
    x = x or b.pick(lambda v: v.rank <= 4)
    axes = sorted(
        b.rng.sample(range(x.rank + 2), 2) if b.chance(3) else [b.rng.randrange(x.rank + 1)]
    )
    shape = list(x.shape)
    for axis in axes:
        if axis > len(shape):
            raise Unfit
        shape[axis:axis] = fixed(1)
    if len(axes) == 1 and b.chance(3):
        axes = [axes[0] - len(shape)]
    return with_axes(b, "Unsqueeze", x, tuple(shape), axes)


def squeeze(b: Builder) -> Val:
    x = b.pick(lambda v: any(size == fixed(1)[0] for size in v.shape))
    ones = [axis for axis, size in enumerate(x.shape) if size == fixed(1)[0]]
    axes = ones if b.chance(3) else [b.rng.choice(ones)]
    shape = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    if b.chance(3):
        axes = [axis - x.rank for axis in axes]
    if b.chance(5) and axes == ones and b.opset >= 13:
        free = [s for s in x.shape if not is_fixed(s)]  # it would go by the size in the run
        if not free:
            return b.node("Squeeze", [x], shape, x)
    return with_axes(b, "Squeeze", x, shape, axes)


def pad(b: Builder, x: Val | None = None) -> Val:
    x = x or anything(b)
    if x.dtype != "float":
        raise Unfit
    mode = b.rng.choice(["constant", "constant", "constant", "edge", "reflect"])
    if mode != "constant" and (x.rank < 3 or any(min(s) < 3 for s in x.shape[2:])):
        raise Unfit
    inner = x.rank >= 3 and (mode != "constant" or not b.chance(4))
    low = [0 if inner and axis < 2 else b.rng.randrange(2) for axis in range(x.rank)]
    high = [0 if inner and axis < 2 else b.rng.randrange(2) for axis in range(x.rank)]
    shape = by_world(lambda w: [s[w] + a + c for s, a, c in zip(x.shape, low, high, strict=True)])
    inputs = [x, b.ints(*low, *high)]
    if mode == "constant" and b.chance(2):
        inputs.append(b.scalar(b.rng.choice([0.0, 0.0, 1.5])))
    bound = max(x.bound, 1.5)
    return b.node("Pad", inputs, shape, bound=bound, error=x.error, mode=mode)


def expand(b: Builder) -> Val:
    x = anything(b, 0)
    target = [b.rng.choice([1, 1, s[0] if is_fixed(s) else 1]) for s in x.shape]
    target = [b.rng.choice([1, 2])] * b.rng.randrange(2) + target
    return b.node("Expand", [x, b.ints(*target)], broadcast(x.shape, fixed(*target)), x)


def tile(b: Builder) -> Val:
    x = anything(b)
    repeats = [b.rng.choice([1, 1, 2]) for _ in x.shape]
    shape = by_world(lambda w: [s[w] * r for s, r in zip(x.shape, repeats, strict=True)])
    return b.node("Tile", [x, b.ints(*repeats)], shape, x)


def blocks(b: Builder) -> Val:
    x = b.pick(lambda v: v.rank == 4 and v.dtype == "float" and all(map(is_fixed, v.shape[1:])))
    n, (c, h, w) = x.shape[0], (s[0] for s in x.shape[1:])
    if c % 4 == 0 and b.chance(2):
        mode = b.rng.choice(["DCR", "CRD"])
        shape = (n, *fixed(c // 4, h * 2, w * 2))
        return b.node("DepthToSpace", [x], shape, x, blocksize=2, mode=mode)
    if h % 2 or w % 2:
        raise Unfit
    return b.node("SpaceToDepth", [x], (n, *fixed(c * 4, h // 2, w // 2)), x, blocksize=2)


def chain(b: Builder) -> Val:
    """Several in a row, which often cancel."""
    x = anything(b, 2)
    for _ in range(b.rng.randrange(2, 5)):
        kind = b.rng.randrange(4)
        if kind <= 1 and x.rank >= 2:
            x = transpose(b, x)
        elif kind == 2 and x.rank:
            x = reshape(b, x)
        elif x.rank < 5:
            x = unsqueeze(b, x)
    return x


RECIPES: list[tuple[int, Recipe]] = [
    (5, transpose),
    (5, reshape),
    (2, flatten),
    (3, unsqueeze),
    (3, squeeze),
    (2, pad),
    (2, expand),
    (1, tile),
    (1, blocks),
    (5, chain),
]
