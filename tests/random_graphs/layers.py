"""Recipes for layers of networks: convolution, pooling, products, normalization, reduction."""

from __future__ import annotations

import math

from tests.random_graphs.builder import (
    UNIT,
    AttributeValue,
    Builder,
    Sizes,
    Unfit,
    Val,
    broadcast,
    by_world,
    fixed,
    is_fixed,
)
from tests.random_graphs.elementwise import Recipe, affine, unary


def image(b: Builder) -> Val:
    """A value with channels that are known, and two axes more."""
    return b.pick(
        lambda v: v.dtype == "float" and v.rank == 4 and is_fixed(v.shape[1]) and v.shape[1][0] > 0
    )


def summed(x: Val, terms: int, weight: float = 2.0) -> tuple[float, float]:
    """Bound and error of a sum of products with constants."""
    bound = terms * weight * x.bound
    return bound, terms * weight * x.error + terms * UNIT * bound


def window(sizes: Sizes, kernel: int, stride: int, pads: list[int], dilation: int = 1) -> Sizes:
    """What a window makes of two axes."""
    reach = dilation * (kernel - 1) + 1

    def one(world: int) -> list[int] | None:
        found = [
            (size[world] + pads[i] + pads[i + 2] - reach) // stride + 1
            for i, size in enumerate(sizes)
        ]
        return found if min(found) > 0 else None

    return by_world(one)


def tail(b: Builder, x: Val) -> Val:
    """Up to three of what is fused into the layer before: arithmetic, normalization, Pad, Relu."""
    for _ in range(b.rng.randrange(4)):
        kind = b.rng.randrange(6)
        if kind == 0:
            x = batchnorm(b, x)
        elif kind == 1:
            x = unary(b, x, "Relu")
        else:
            x = affine(b, x)
    return x


def batchnorm(b: Builder, x: Val | None = None) -> Val:
    x = x or b.pick(lambda v: v.dtype == "float" and v.rank >= 2)
    if x.rank < 2 or not is_fixed(x.shape[1]):
        raise Unfit
    channels = x.shape[1][0]
    if not channels:
        raise Unfit
    scale, bias, mean = (b.weights(channels) for _ in range(3))
    var = b.weights(channels, positive=True)
    # the variance is a tenth or more, so the factor is at most 2 / sqrt(0.1) < 7
    bound = 7 * (x.bound + 2) + 2
    error = 7 * x.error + 16 * UNIT * bound
    inputs = [x, scale, bias, mean, var]
    epsilon = b.rng.choice([1e-5, 0.25])
    return b.node("BatchNormalization", inputs, x.shape, bound=bound, error=error, epsilon=epsilon)


def conv(b: Builder) -> Val:
    from tests.random_graphs.movement import pad

    x = image(b)
    if b.chance(3):
        x = pad(b, x)
        if not is_fixed(x.shape[1]):
            raise Unfit
    channels = x.shape[1][0]
    group = b.rng.choice([1, 1, channels])
    out = b.rng.choice([2, 3, 4]) if group == 1 else group
    kernel, stride, dilation = b.rng.choice([1, 1, 2, 3]), b.rng.choice([1, 1, 2]), 1
    pads = [b.rng.choice([0, 0, 1]) for _ in range(4)]
    attributes: dict[str, AttributeValue] = {}
    if b.chance(5):
        attributes["auto_pad"] = "VALID"
        pads = [0] * 4
    else:
        attributes["pads"] = pads
        dilation = b.rng.choice([1, 1, 2])
    attributes |= {"strides": [stride] * 2, "dilations": [dilation] * 2, "group": group}
    if b.chance(2):
        attributes["kernel_shape"] = [kernel] * 2
    shape = (x.shape[0], *fixed(out), *window(x.shape[2:], kernel, stride, pads, dilation))
    inputs = [x, b.weights(out, channels // group, kernel, kernel)]
    if b.chance(2):
        inputs.append(b.weights(out))
    bound, error = summed(x, channels // group * kernel**2)
    y = b.node(
        "Conv", inputs, shape, bound=bound + 2, error=error + 2 * UNIT, attributes=attributes
    )
    return tail(b, y)


def conv_transpose(b: Builder) -> Val:
    x = image(b)
    channels = x.shape[1][0]
    group = b.rng.choice([1, 1, channels])
    out = b.rng.choice([1, 2]) if group > 1 else b.rng.choice([2, 3])
    stride, kernel = b.rng.choice([1, 2]), b.rng.choice([1, 2, 3])

    def one(world: int) -> list[int]:
        return [stride * (size[world] - 1) + kernel for size in x.shape[2:]]

    inputs = [x, b.weights(channels, out, kernel, kernel)]
    if b.chance(2):
        inputs.append(b.weights(out * group))
    bound, error = summed(x, channels // group * kernel**2)
    shape = (x.shape[0], *fixed(out * group), *by_world(one))
    y = b.node(
        *("ConvTranspose", inputs, shape),
        bound=bound + 2,
        error=error + 2 * UNIT,
        strides=[stride] * 2,
        group=group,
    )
    return tail(b, y)


def pool(b: Builder) -> Val:
    from tests.random_graphs.movement import pad

    x = image(b)
    if b.chance(3):
        x = pad(b, x)
    op = b.rng.choice(["MaxPool", "AveragePool", "LpPool"])
    kernel, stride = b.rng.choice([1, 2, 3]), b.rng.choice([1, 2])
    pads = [b.rng.choice([0, 0, 1]) if kernel > 1 else 0 for _ in range(4)]
    attributes: dict[str, AttributeValue] = {
        "kernel_shape": [kernel] * 2,
        "strides": [stride] * 2,
        "pads": pads,
    }
    if op == "AveragePool":
        attributes["count_include_pad"] = b.rng.randrange(2)
    shape = (*x.shape[:2], *window(x.shape[2:], kernel, stride, pads))
    bound, error = x.bound, x.error
    if op == "AveragePool":
        error += kernel**2 * UNIT * bound
    if op == "LpPool":
        bound = error = math.inf
    return b.node(op, [x], shape, bound=bound, error=error, attributes=attributes)


def global_pool(b: Builder) -> Val:
    x = image(b)
    op = b.rng.choice(["GlobalAveragePool", "GlobalMaxPool"])
    if any(min(s) == 0 for s in x.shape):
        raise Unfit
    error = x.error + 128 * UNIT * x.bound
    return b.node(op, [x], (*x.shape[:2], *fixed(1, 1)), bound=x.bound, error=error)


def last_axis(b: Builder, rank: int | None = None) -> Val:
    """A value whose last axis is known."""
    return b.pick(
        lambda v: v.dtype == "float" and v.rank >= 2 and is_fixed(v.shape[-1])
        and v.shape[-1][0] > 0 and rank in (None, v.rank)
    )  # fmt: skip


def matmul(b: Builder) -> Val:
    """With constant weights, and what is often after it."""
    x = last_axis(b)
    inner, out = x.shape[-1][0], b.rng.choice([2, 3, 4])
    bound, error = summed(x, inner)
    shape = (*x.shape[:-1], *fixed(out))
    y = b.node("MatMul", [x, b.weights(inner, out)], shape, bound=bound, error=error)
    return tail(b, y)


def gemm(b: Builder) -> Val:
    x = last_axis(b, 2)
    inner, out = x.shape[-1][0], b.rng.choice([2, 3])
    swapped = b.rng.randrange(2)
    inputs = [x, b.weights(*((out, inner) if swapped else (inner, out)))]
    bound, error = summed(x, inner, 4.0)
    if b.chance(2):
        inputs.append(b.weights(*b.rng.choice([(out,), (1, out), (1, 1)])))
    attributes: dict[str, AttributeValue] = {"transB": swapped}
    if b.chance(3):
        attributes |= {"alpha": 2.0, "beta": 0.5}
    shape = (x.shape[0], *fixed(out))
    y = b.node(
        "Gemm", inputs, shape, bound=bound + 2, error=error + 2 * UNIT, attributes=attributes
    )
    return tail(b, y)


def product_of_two(b: Builder) -> Val:
    """Of two computed values, one of them transposed; or Einsum."""
    x = b.floats()
    if x.rank < 2:
        raise Unfit
    y = b.pick(lambda v: v.dtype == "float" and v.rank == x.rank and v.shape[-1] == x.shape[-1])
    axes = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    turned = b.node("Transpose", [y], tuple(y.shape[a] for a in axes), y, perm=axes)
    lead = broadcast(x.shape[:-2], y.shape[:-2])
    terms = max(x.shape[-1])
    bound = terms * x.bound * y.bound
    error = terms * (x.bound * y.error + y.bound * x.error + x.error * y.error + UNIT * bound)
    shape = (*lead, x.shape[-2], y.shape[-2])
    if x.rank == 2 and b.opset >= 12 and b.chance(3):
        return b.node("Einsum", [x, y], shape, equation="ik,jk->ij")
    return b.node("MatMul", [x, turned], shape, bound=bound, error=error)


def resize(b: Builder) -> Val:
    """By scales, now and then of one; or to sizes."""
    x = image(b)
    if any(min(s) < 1 for s in x.shape):
        raise Unfit
    mode = b.rng.choice(["nearest", "linear"])
    factor = b.rng.choice([1, 2])
    sizes = tuple(tuple(n * factor for n in s) for s in x.shape[2:])
    shape = (*x.shape[:2], *sizes)
    attributes: dict[str, AttributeValue] = {
        "mode": mode,
        "coordinate_transformation_mode": "asymmetric",
    }
    error = x.error + 8 * UNIT * x.bound
    if all(map(is_fixed, shape)) and b.chance(2):
        inputs = [x, None, None, b.ints(*(s[0] for s in shape))]
    else:
        scales = b.constant("float", [4], [1.0, 1.0, float(factor), float(factor)])
        inputs = [x, None, scales]
    if b.opset < 13:  # the inputs were not yet optional
        inputs[1] = b.constant("float", [0], [])
        inputs[2] = inputs[2] or b.constant("float", [0], [])
    return b.node("Resize", inputs, shape, bound=x.bound, error=error, attributes=attributes)


def eye(b: Builder) -> Val:
    x = b.floats(2)
    error = 0.0
    return b.node("EyeLike", [x], x.shape, bound=1, error=error)


RECIPES: list[tuple[int, Recipe]] = [
    (6, conv),
    (3, conv_transpose),
    (3, pool),
    (1, global_pool),
    (2, batchnorm),
    (6, matmul),
    (4, gemm),
    (2, product_of_two),
    (2, resize),
    (1, eye),
]
