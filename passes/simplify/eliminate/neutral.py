"""Arithmetic and logic with the neutral element.

x * 1, x / 1, x - 0, x ** 1, x and True, x or False, x xor False -> x, bit for bit
x + 0 -> x, but for the sign of zero
Where(True, x, y) -> x, Where(False, x, y) -> y
"""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Array, Node, Value
from onnxslim.passes.simplify.eliminate.common import removal
from onnxslim.rewrite import Rule

NEUTRAL: dict[str, tuple[float, frozenset[int]]] = {
    "Mul": (1, frozenset({0, 1})),
    "Div": (1, frozenset({1})),
    "Pow": (1, frozenset({1})),
    "Add": (0, frozenset({0, 1})),
    "Sub": (0, frozenset({1})),
    "And": (1, frozenset({0, 1})),
    "Or": (0, frozenset({0, 1})),
    "Xor": (0, frozenset({0, 1})),
}
"""The neutral element of an operator, and as which inputs it is neutral."""


def _neutral(node: Node, facts: Facts) -> Value | str | None:
    number, places = NEUTRAL[ir.op(node)]
    for index in sorted(places):
        constant = facts.array(node.inputs[index])
        if constant is None or not constant.size or not np.all(constant == number):
            continue
        if ir.op(node) == "Sub" and constant.dtype.kind not in "iub" and np.signbit(constant).any():
            return "it subtracts -0.0"
        x = node.inputs[1 - index]
        if x is None or not _keeps_shape(node, x, constant, facts):
            return "the constant may widen the shape"
        return x
    return None


def _keeps_shape(node: Node, x: Value, other: Array, facts: Facts) -> bool:
    rank = facts.rank(x)
    if other.size == 1 and (other.ndim == 0 or (rank is not None and other.ndim <= rank)):
        return True
    shape = facts.shape(x)
    if shape is None or other.ndim > len(shape):
        return False
    tail = shape[len(shape) - other.ndim :]
    return all(size in (1, mine) for size, mine in zip(other.shape, tail, strict=True))


def _where(node: Node, facts: Facts) -> Value | str | None:
    condition = facts.array(node.inputs[0])
    if condition is None or not condition.size or condition.any() != condition.all():
        return None
    chosen = node.inputs[1 if condition.all() else 2]
    shape = facts.shape(chosen)
    if shape is None or shape != facts.shape(node.outputs[0]):
        return "the branch that is never taken may widen the shape"
    return chosen


RULES: tuple[Rule, ...] = (
    removal(
        "neutral-element",
        sorted(set(NEUTRAL) - {"Add"}),
        _neutral,
        "x * 1, x / 1, x - 0, x ** 1, x and True, x or False, x xor False -> x",
    ),
    removal("add-zero", ["Add"], _neutral, "x + 0 -> x, but for the sign of zero", exact=False),
    removal("constant-where", ["Where"], _where, "Where(constant, x, y) -> x or y"),
)
