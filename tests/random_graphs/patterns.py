"""Recipes for operators that exporters write as several nodes, and for what nearly is one."""

from __future__ import annotations

import math

from tests.random_graphs.builder import UNIT, Builder, Unfit, Val, fixed, is_fixed
from tests.random_graphs.elementwise import Recipe, broadcast_to, combine, unary
from tests.random_graphs.layers import last_axis
from tests.random_graphs.reductions import reduce_node


def constant(b: Builder, number: float) -> Val:
    """The constant that the pattern has, or now and then one that it must not have."""
    if b.chance(12):
        number *= 1.01
    return b.scalar(number, [1] if b.chance(4) else [])


def times(b: Builder, one: Val, other: Val) -> Val:
    return combine(b, "Mul", *((other, one) if b.chance(2) else (one, other)))


def plus(b: Builder, one: Val, other: Val) -> Val:
    return combine(b, "Add", *((other, one) if b.chance(2) else (one, other)))


def again(b: Builder, x: Val) -> Val:
    """The same value a second time, or now and then another one of its shape."""
    if not b.chance(15):
        return x
    return b.pick(lambda v: v.dtype == "float" and v.shape == x.shape)


def over(b: Builder, one: Val, other: Val, gain: float) -> Val:
    """A quotient with a known slope."""
    bound = gain * one.bound
    error = gain * (one.error + other.error * (1 + bound)) + UNIT * bound
    shape = broadcast_to(one.shape, other.shape)
    return b.node("Div", [one, other], shape, bound=bound, error=error)


def gelu(b: Builder) -> Val:
    x = b.floats()
    if b.chance(2):
        scaled = over(b, x, constant(b, math.sqrt(2)), 1)
    else:
        scaled = times(b, x, constant(b, math.sqrt(0.5)))
    y = plus(b, unary(b, scaled, "Erf"), constant(b, 1.0))
    if b.chance(2):
        return times(b, times(b, again(b, x), y), constant(b, 0.5))
    if b.chance(2):
        return times(b, times(b, again(b, x), constant(b, 0.5)), y)
    return times(b, again(b, x), times(b, y, constant(b, 0.5)))


def gelu_tanh(b: Builder) -> Val:
    x = unary(b, b.floats(), "Tanh") if b.chance(2) else b.floats()
    if b.chance(2):
        cube = b.node("Pow", [x, b.scalar(3.0)], x.shape, bound=x.bound**3,
                      error=3 * x.bound**2 * x.error + 8 * UNIT * x.bound**3)  # fmt: skip
    else:
        cube = times(b, times(b, x, x), again(b, x))
    inner = plus(b, again(b, x), times(b, cube, constant(b, 0.044715)))
    y = unary(b, times(b, inner, constant(b, math.sqrt(2 / math.pi))), "Tanh")
    y = plus(b, y, constant(b, 1.0))
    if b.chance(2):
        return times(b, times(b, again(b, x), constant(b, 0.5)), y)
    return times(b, times(b, again(b, x), y), constant(b, 0.5))


def hard_swish(b: Builder) -> Val:
    x = b.floats()
    if b.chance(3):
        gate = b.node("HardSigmoid", [x], x.shape, bound=1, error=x.error / 5 + 4 * UNIT,
                      alpha=b.rng.choice([1 / 6, 1 / 6, 0.2]), beta=0.5)  # fmt: skip
        return times(b, again(b, x), gate)
    shifted = plus(b, x, constant(b, 3.0))
    high = constant(b, 6.0)
    if high.shape:
        raise Unfit
    gate = b.node("Clip", [shifted, b.scalar(0.0), high], x.shape, bound=7, error=shifted.error)
    if b.chance(2):
        return over(b, times(b, again(b, x), gate), constant(b, 6.0), 1)
    return times(b, again(b, x), over(b, gate, constant(b, 6.0), 1))


def hard_sigmoid(b: Builder) -> Val:
    x = b.floats()
    shifted = plus(b, x, constant(b, 3.0))
    gate = b.node("Clip", [shifted, b.scalar(0.0), b.scalar(6.0)], x.shape, bound=6,
                  error=shifted.error)  # fmt: skip
    return over(b, gate, constant(b, 6.0), 1)


def swish(b: Builder) -> Val:
    x = b.floats()
    return times(b, again(b, x), unary(b, x, "Sigmoid"))


def mish(b: Builder) -> Val:
    x = b.floats()
    soft = b.node("Softplus", [x], x.shape, bound=x.bound + 1, error=x.error + 8 * UNIT)
    return times(b, again(b, x), unary(b, soft, "Tanh"))


def rooted(b: Builder, variance: Val) -> tuple[Val, float]:
    """The square root of a variance and epsilon, and the gain of dividing by it."""
    epsilon = b.rng.choice([0.25, 0.25, 1e-3])
    least = math.sqrt(epsilon)
    moved = plus(b, variance, constant(b, epsilon))
    error = moved.error / least + UNIT * moved.bound
    root = b.node("Sqrt", [moved], moved.shape, bound=math.sqrt(moved.bound), error=error)
    return root, 1 / least


def layer_norm(b: Builder) -> Val:
    x = last_axis(b)
    axes = [x.rank - 1] if not b.chance(4) else [x.rank - 2]
    keep = not b.chance(10)
    if b.chance(2):
        x = unary(b, x, "Tanh")
    if any(min(s) < 1 for s in x.shape):
        raise Unfit
    centred = combine(b, "Sub", x, reduce_node(b, "ReduceMean", x, axes, keep))
    if b.chance(2):
        bound = centred.bound**2
        error = 3 * centred.bound * centred.error + 8 * UNIT * bound
        inputs = [again(b, centred), b.scalar(2.0)]
        square = b.node("Pow", inputs, centred.shape, bound=bound, error=error)
    else:
        square = times(b, centred, again(b, centred))
    root, gain = rooted(b, reduce_node(b, "ReduceMean", square, axes, keep))
    y = over(b, again(b, centred), root, gain)
    return scaled(b, y)


def scaled(b: Builder, y: Val) -> Val:
    """By a weight for each element of the last axis, or of another shape; and moved."""
    size = y.shape[-1]
    if not is_fixed(size):
        return y
    for op in ("Mul", "Add")[: b.rng.choice([0, 1, 2, 2])]:
        dims = b.rng.choice([[size[0]], [size[0]], [1, size[0]], [1]])
        y = times(b, y, b.weights(*dims)) if op == "Mul" else plus(b, y, b.weights(*dims))
    return y


def rms_norm(b: Builder) -> Val:
    x = last_axis(b)
    if b.chance(2):
        x = unary(b, x, "Tanh")
    if any(min(s) < 1 for s in x.shape):
        raise Unfit
    square = times(b, x, again(b, x))
    root, gain = rooted(b, reduce_node(b, "ReduceMean", square, [x.rank - 1]))
    if b.chance(2):
        return scaled(b, over(b, again(b, x), root, gain))
    error = gain**2 * root.error + UNIT * gain
    inverse = b.node("Reciprocal", [root], root.shape, bound=gain, error=error)
    return scaled(b, times(b, again(b, x), inverse))


def softmax(b: Builder) -> Val:
    x = last_axis(b)
    axes = [x.rank - 1] if not b.chance(4) else [x.rank - 2]
    if any(min(s) < 1 for s in x.shape):
        raise Unfit
    if b.chance(2):  # not shifted: exponentials of any size
        e = b.node("Exp", [x], x.shape)
        return b.node("Div", [e, reduce_node(b, "ReduceSum", e, axes)], x.shape)
    shifted = combine(b, "Sub", x, reduce_node(b, "ReduceMax", x, axes))
    e = b.node("Exp", [shifted], x.shape, bound=1, error=2 * shifted.error + 8 * UNIT)
    return over(b, again(b, e), reduce_node(b, "ReduceSum", e, axes), 1)


def projections(b: Builder) -> Val:
    """Two or three products with one input, as for Q, K and V; biases sometimes."""
    x = last_axis(b)
    inner, out = x.shape[-1][0], b.rng.choice([2, 4])
    parts: list[Val] = []
    for _ in range(b.rng.choice([2, 3])):
        bound = inner * 2 * x.bound
        error = inner * 2 * x.error + inner * UNIT * bound
        shape = (*x.shape[:-1], *fixed(out))
        y = b.node("MatMul", [x, b.weights(inner, out)], shape, bound=bound, error=error)
        parts.append(plus(b, y, b.weights(out)) if b.chance(2) else y)
    return plus(b, parts[0], parts[-1])


def attention(b: Builder) -> Val:
    """Heads of a sequence, as exporters write it: Reshape, Transpose, MatMul, Softmax."""
    x = last_axis(b, 3)
    size = x.shape[-1][0]
    if size % 2 or any(min(s) < 1 for s in x.shape):
        raise Unfit
    heads: list[Val] = []
    for _ in range(3):
        y = b.node("MatMul", [x, b.weights(size, size)], x.shape)
        split = (*x.shape[:2], *fixed(2, size // 2))
        y = b.node("Reshape", [y, b.ints(0, 0, 2, size // 2)], split)
        heads.append(
            b.node("Transpose", [y], tuple(split[a] for a in (0, 2, 1, 3)), perm=[0, 2, 1, 3])
        )
    q, k, v = heads
    turned = tuple(k.shape[a] for a in (0, 1, 3, 2))
    k = b.node("Transpose", [k], turned, perm=[0, 1, 3, 2])
    scores = b.node("MatMul", [q, k], (*q.shape[:2], q.shape[2], q.shape[2]))
    scores = b.node("Mul", [scores, b.scalar(0.5)], scores.shape)
    y = b.node("Softmax", [scores], scores.shape, axis=-1)
    y = b.node("MatMul", [y, v], q.shape)
    y = b.node("Transpose", [y], tuple(q.shape[a] for a in (0, 2, 1, 3)), perm=[0, 2, 1, 3])
    return b.node("Reshape", [y, b.ints(0, 0, size)], x.shape)


def repeated(b: Builder) -> Val:
    """The line of a node that is there already, under another name."""
    lines = [line for line in b.lines if "{" not in line]
    if not lines or not b.own:
        raise Unfit
    line = b.rng.choice(lines)
    name, rest = line.split(" = ", 1)
    source = [v for v in b.own if v.name == name]
    if not source:
        raise Unfit
    found = source[0]
    twin = Val(b.names.new(), found.dtype, found.shape, found.bound, found.error, found.content)
    b.lines.append(f"{twin.name} = {rest}")
    b.values.append(twin)
    b.own.append(twin)
    return twin


RECIPES: list[tuple[int, Recipe]] = [
    (3, gelu),
    (3, gelu_tanh),
    (3, hard_swish),
    (1, hard_sigmoid),
    (2, swish),
    (2, mish),
    (4, layer_norm),
    (3, rms_norm),
    (3, softmax),
    (3, projections),
    (3, attention),
    (3, repeated),
]
