"""Recipes for operators that work on each element."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.random_graphs.builder import UNIT, AttributeValue, Builder, Sizes, Unfit, Val, broadcast

Recipe = Callable[[Builder], object]

# Operator: the opset that has it, its Lipschitz constant, and its bound where it has one.
SMOOTH: dict[str, tuple[int, float, float]] = {
    "Relu": (11, 1, math.inf),
    "Neg": (11, 1, math.inf),
    "Abs": (11, 1, math.inf),
    "Sigmoid": (11, 0.25, 1),
    "Tanh": (11, 1, 1),
    "Erf": (11, 1.13, 1),
    "Softsign": (11, 1, 1),
    "Sin": (11, 1, 1),
    "Cos": (11, 1, 1),
    "Atan": (11, 1, 1.58),
    "Identity": (11, 1, math.inf),
    "LeakyRelu": (11, 1, math.inf),
    "Elu": (11, 1, math.inf),
    "Selu": (11, 1.76, math.inf),
    "HardSigmoid": (11, 0.2, 1),
    "HardSwish": (14, 1.5, math.inf),
    "Mish": (18, 1.1, math.inf),
    "Gelu": (20, 1.13, math.inf),
    "Celu": (12, 1, math.inf),
    "Dropout": (11, 1, math.inf),
}
ROUGH = [
    *("Exp", "Log", "Sqrt", "Floor", "Ceil", "Round", "Sign", "Reciprocal", "Tan", "Sinh"),
    *("Cosh", "Asinh", "Shrink", "ThresholdedRelu", "Softplus"),
]
COMPARE = {"Equal": 11, "Less": 11, "Greater": 11, "LessOrEqual": 12, "GreaterOrEqual": 12}
NEUTRAL = [0.0, 1.0, -1.0, 2.0, 0.5, 0.1, 3.0]


def unary(b: Builder, x: Val, op: str | None = None) -> Val:
    """A smooth function of each element."""
    op = op or b.rng.choice(list(SMOOTH))
    since, slope, limit = SMOOTH[op]
    b.since(since)
    bound = min(limit, max(slope, 1) * x.bound)
    error = slope * x.error + 8 * UNIT * max(bound, 1)
    content = x.content if op == "Identity" else None
    return b.node(op, [x], x.shape, dtype=x.dtype, bound=bound, error=error, content=content)


def smooth(b: Builder) -> Val:
    return unary(b, b.floats())


def rough(b: Builder) -> Val:
    x = b.floats()
    return b.node(b.rng.choice(ROUGH), [x], x.shape)


def identity(b: Builder) -> Val:
    return unary(b, b.pick(lambda v: True), "Identity")


def clip(b: Builder) -> Val:
    x = b.floats()
    low, high = b.rng.choice([(-1.0, 1.0), (0.0, 6.0), (0.0, None), (None, 2.0), (None, None)])
    bounds = [None if limit is None else b.scalar(limit) for limit in (low, high)]
    return b.node("Clip", [x, *bounds], x.shape, like=x)


def joined(op: str, one: Val, other: Val) -> tuple[float, float]:
    """Bound and error of an operator with two operands."""
    if op in ("Add", "Sub", "Sum", "Mean"):
        bound, error = one.bound + other.bound, one.error + other.error
    elif op == "Mul":
        bound = one.bound * other.bound
        error = one.bound * other.error + other.bound * one.error + one.error * other.error
    elif op in ("Max", "Min"):
        bound, error = max(one.bound, other.bound), max(one.error, other.error)
    else:
        return math.inf, math.inf
    if math.isnan(bound) or math.isnan(error):
        return math.inf, math.inf
    return bound, error + UNIT * bound


def combine(b: Builder, op: str, one: Val, other: Val) -> Val:
    bound, error = joined(op, one, other)
    shape = broadcast(one.shape, other.shape)
    return b.node(op, [one, other], shape, dtype=one.dtype, bound=bound, error=error)


def binary(b: Builder) -> Val:
    op = b.rng.choice(["Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean", "Div", "Pow", "PRelu"])
    one = b.floats()
    other = b.floats()
    if op == "PRelu":
        slope = b.weights(*per_channel(b, one))
        return b.node(op, [one, slope], broadcast_to(one.shape, slope.shape))
    return combine(b, op, one, other)


def broadcast_to(shape: Sizes, other: Sizes) -> Sizes:
    """The shape, where the other does not widen it."""
    if broadcast(shape, other) != shape:
        raise Unfit
    return shape


def with_constant(b: Builder) -> Val:
    """Arithmetic with a constant: a neutral one, a scalar, or one for each channel."""
    return affine(b, b.floats())


def affine(b: Builder, x: Val) -> Val:
    op = b.rng.choice(["Add", "Sub", "Mul", "Div"])
    kind = b.rng.randrange(3)
    if kind == 0:
        c = b.scalar(b.rng.choice(NEUTRAL), [1] * b.rng.randrange(min(x.rank, 2) + 1))
    else:
        c = b.weights(*per_channel(b, x), positive=op == "Div")
    first = b.chance(3)
    one, other = (c, x) if first else (x, c)
    if op != "Div":
        return combine(b, op, one, other)
    if first or not c.bound:
        return b.node(op, [one, other], broadcast(c.shape, x.shape))
    # the smallest divisor is a tenth
    error = 10 * x.error + 20 * UNIT * x.bound
    return b.node(op, [x, c], broadcast(x.shape, c.shape), bound=10 * x.bound, error=error)


def per_channel(b: Builder, x: Val) -> list[int]:
    """Dimensions of a constant that has as many elements as one axis of x, or is a scalar."""
    fitting = [axis for axis, size in enumerate(x.shape) if len(set(size)) == 1]
    if not fitting:
        return [1]
    axis = b.rng.choice(fitting if b.chance(3) else (fitting[:1] if x.rank > 2 else fitting[-1:]))
    dims = [x.shape[axis][0] if i == axis else 1 for i in range(x.rank)]
    return dims if b.chance(2) else dims[axis:]


def compare(b: Builder) -> Val:
    op = b.rng.choice(list(COMPARE))
    b.since(COMPARE[op])
    one = b.floats()
    other = b.scalar(b.rng.choice(NEUTRAL)) if b.chance(2) else b.floats()
    error = 0.0 if one.error == other.error == 0 else math.inf
    shape = broadcast(one.shape, other.shape)
    return b.node(op, [one, other], shape, dtype="bool", bound=1, error=error)


def logic(b: Builder) -> Val:
    one = b.pick(lambda v: v.dtype == "bool")
    op = b.rng.choice(["Not", "And", "Or", "Xor"])
    if op == "Not":
        return b.node(op, [one], one.shape, like=one)
    other = b.pick(lambda v: v.dtype == "bool")
    shape = broadcast(one.shape, other.shape)
    return b.node(op, [one, other], shape, like=one if one.error else other)


def where(b: Builder) -> Val:
    condition = b.pick(lambda v: v.dtype == "bool")
    one = b.floats()
    other = b.scalar(b.rng.choice(NEUTRAL)) if b.chance(2) else b.floats()
    bound, error = max(one.bound, other.bound), max(one.error, other.error) + condition.error
    shape = broadcast(condition.shape, one.shape, other.shape)
    return b.node("Where", [condition, one, other], shape, bound=bound, error=error)


CASTS = {"float": 1, "int64": 7, "bool": 9, "float16": 10, "double": 11, "int32": 6}


def cast(b: Builder) -> Val:
    x = b.pick(lambda v: v.dtype in CASTS)
    to = b.rng.choice([x.dtype, *CASTS])
    exact = to == x.dtype or (x.dtype, to) in (("float", "double"), ("bool", "float"))
    kept = x if exact or x.content is not None else None
    y = b.node("Cast", [x], x.shape, kept, dtype=to, to=CASTS[to])
    if to in ("double", "float16", "int32") and not b.chance(3):  # and back, where more can follow
        # the runtime loses two casts in a row that only graphs inside nodes read
        y = b.node("Abs", [y], y.shape, y)
        kept = x if exact and x.dtype == "float" else None
        return b.node("Cast", [y], x.shape, kept, dtype="float", to=1)
    return y


def cast_like(b: Builder) -> Val:
    b.since(15)
    x, like = b.floats(), b.floats()
    return b.node("CastLike", [x, like], x.shape, like=x)


def nan_test(b: Builder) -> Val:
    x = b.floats()
    return b.node(b.rng.choice(["IsNaN", "IsInf"]), [x], x.shape, dtype="bool")


def quantized(b: Builder) -> Val:
    """A quantized value and back."""
    x = b.floats()
    scale, zero = b.scalar(0.25), b.constant("uint8", (), [128])
    q = b.node("QuantizeLinear", [x, scale, zero], x.shape, dtype="uint8")
    return b.node("DequantizeLinear", [q, scale, zero], x.shape)


def cumulative(b: Builder) -> Val:
    x = b.floats()
    if not x.rank:
        raise Unfit
    axis = b.constant("int64", (), [b.rng.randrange(x.rank)])
    attributes: dict[str, AttributeValue] = {"exclusive": 1} if b.chance(3) else {}
    return b.node("CumSum", [x, axis], x.shape, attributes=attributes)


RECIPES: list[tuple[int, Recipe]] = [
    (6, smooth),
    (1, rough),
    (2, identity),
    (2, clip),
    (4, binary),
    (6, with_constant),
    (1, compare),
    (1, logic),
    (2, where),
    (3, cast),
    (1, cast_like),
    (1, nan_test),
    (1, quantized),
    (1, cumulative),
]
