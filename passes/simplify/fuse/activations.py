"""Activations written out in elementary operators, and the operators that they are.

x * 0.5 * (1 + Erf(x / sqrt(2))) -> Gelu                              (opset 20)
x * 0.5 * (1 + Tanh(sqrt(2/pi) * (x + 0.044715 * x^3))) -> Gelu       (opset 20, tanh)
x * Clip(x + 3, 0, 6) / 6 -> HardSwish (opset 14), HardSigmoid * x before
Clip(x + 3, 0, 6) / 6 -> HardSigmoid
x * Tanh(Softplus(x)) -> Mish                                         (opset 18)
x * Sigmoid(x) -> Swish                                               (opset 24)
Exp(x - max) / ReduceSum(Exp(x - max)) -> Softmax
The formulas are those of the ONNX operator specification.
"""

from __future__ import annotations

import math

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.passes.simplify.fuse.axes import reduced_axes
from onnxslim.passes.simplify.fuse.fusion import BEFORE, Made, Make, fusion
from onnxslim.rewrite import Rule
from onnxslim.rewrite.pattern import Any, Match, Op, Term, either, integers, number, op

_X = Any("x")


def _halves(one_plus: Term) -> tuple[Op, ...]:
    """x * 0.5 * (1 + t) in any order."""
    half = number(0.5)
    return (
        op("Mul", op("Mul", _X, one_plus), half),
        op("Mul", op("Mul", _X, half), one_plus),
        op("Mul", _X, op("Mul", one_plus, half)),
        op("Div", op("Mul", _X, one_plus), number(2)),
    )


_CUBE = either(
    op("Pow", _X, number(3)),
    op("Mul", _X, op("Mul", _X, _X)),
    op("Mul", op("Mul", _X, _X), _X),
)
_SMALL = number(0.044715)
_SMALL_CUBE = either(
    op("Mul", _CUBE, _SMALL),
    op("Mul", _X, op("Mul", _X, op("Mul", _X, _SMALL))),
)
_FACTOR = number(math.sqrt(2 / math.pi))
_TANH = op(
    "Tanh",
    either(
        op("Mul", op("Add", _X, _SMALL_CUBE), _FACTOR),
        op(
            "Mul",
            op("Mul", _X, _FACTOR),
            op("Add", op("Mul", _SMALL, op("Mul", _X, _X)), number(1)),
        ),
    ),
)
_ERF = op("Erf", either(op("Div", _X, number(math.sqrt(2))), op("Mul", _X, number(math.sqrt(0.5)))))

ERF_GELU = _halves(op("Add", _ERF, number(1)))
TANH_GELU = _halves(op("Add", _TANH, number(1)))


def _gelu(approximate: str) -> Make:
    attributes = {"approximate": approximate} if approximate == "tanh" else {}
    return lambda found, facts: (Made("Gelu", (found.values["x"],), attributes),)


_SHIFTED = op("Add", _X, number(3))
_RELU6 = either(
    op("Clip", _SHIFTED, number(0, "low"), number(6)),
    op("Clip", _SHIFTED, min=(0.0, None), max=(6.0, None)),
)
_SIXTH = number(1 / 6)
HARD_SIGMOID = (op("Div", _RELU6, number(6)), op("Mul", _RELU6, _SIXTH))
HARD_SWISH = (
    op("Div", op("Mul", _X, _RELU6), number(6)),
    op("Mul", op("Mul", _X, _RELU6), _SIXTH),
    op("Mul", _X, either(*HARD_SIGMOID)),
)
_ALPHA_BETA = {"alpha": 1 / 6, "beta": 0.5}


def _hard_sigmoid(found: Match, facts: Facts) -> tuple[Made, ...]:
    return (Made("HardSigmoid", (found.values["x"],), _ALPHA_BETA),)


def _gated(found: Match, facts: Facts) -> tuple[Made, ...]:
    return (*_hard_sigmoid(found, facts), Made("Mul", (found.values["x"], BEFORE)))


def _is_hard_swish(found: Match, facts: Facts) -> tuple[Made, ...] | str:
    """HardSwish has no parameters; those of the HardSigmoid must be its own."""
    node = found.nodes["gate"]
    alpha, beta = ir.attribute(node, "alpha", 0.2), ir.attribute(node, "beta", 0.5)
    if abs(alpha - 1 / 6) > 1e-7 or beta != 0.5:
        return f"its HardSigmoid has alpha {alpha:.6g} and beta {beta:.6g}, not 1/6 and 1/2"
    return (Made("HardSwish", (found.values["x"],)),)


def _unary(kind: str) -> Make:
    return lambda found, facts: (Made(kind, (found.values["x"],)),)


_MAX = either(
    op("ReduceMax", _X, integers("max_axes"), name="max"), op("ReduceMax", _X, name="max")
)
_EXP = op("Exp", op("Sub", _X, _MAX))
SOFTMAX = (
    op(
        "Div",
        _EXP,
        either(
            op("ReduceSum", _EXP, integers("sum_axes"), name="sum"),
            op("ReduceSum", _EXP, name="sum"),
        ),
    ),
)


def _softmax(found: Match, facts: Facts) -> tuple[Made, ...] | str:
    """Over the last axis: before opset 13 there is no other, later others are slower."""
    rank = facts.rank(found.values["x"])
    axes = [reduced_axes(found.nodes[name], rank) for name in ("max", "sum")]
    if rank is None or axes[0] is None or axes[0] != axes[1] or len(axes[0]) != 1:
        return "its maximum and sum are not over one and the same axis"
    if axes[0][0] != rank - 1:
        return "it is not over the last axis"
    return (
        Made(
            "Softmax",
            (found.values["x"],),
            {"axis": -1 if facts.opset(found.root) >= 11 else rank - 1},
        ),
    )


RULES: tuple[Rule, ...] = (
    fusion(
        "erf-gelu", ERF_GELU, _gelu("none"),
        summary="x * 0.5 * (1 + Erf(x / sqrt(2))) -> Gelu", makes="Gelu", since=20,
    ),
    fusion(
        "tanh-gelu", TANH_GELU, _gelu("tanh"),
        summary="x * 0.5 * (1 + Tanh(...)) -> Gelu(tanh)", makes="Gelu", since=20,
    ),
    fusion(
        "hard-swish", HARD_SWISH, _unary("HardSwish"),
        summary="x * Clip(x + 3, 0, 6) / 6 -> HardSwish", makes="HardSwish", since=14,
    ),
    fusion(
        "old-hard-swish", HARD_SWISH, _gated,
        summary="x * Clip(x + 3, 0, 6) / 6 -> x * HardSigmoid(x), before opset 14",
        makes="HardSigmoid", since=6, until=14,
    ),
    fusion(
        "hard-sigmoid-mul", (op("Mul", _X, op("HardSigmoid", _X, name="gate")),), _is_hard_swish,
        summary="x * HardSigmoid(x) -> HardSwish", makes="HardSwish", since=14,
    ),
    fusion(
        "hard-sigmoid", HARD_SIGMOID, _hard_sigmoid,
        summary="Clip(x + 3, 0, 6) / 6 -> HardSigmoid", makes="HardSigmoid", since=6,
    ),
    fusion(
        "mish", (op("Mul", _X, op("Tanh", op("Softplus", _X))),), _unary("Mish"),
        summary="x * Tanh(Softplus(x)) -> Mish", makes="Mish", since=18,
    ),
    fusion(
        "swish", (op("Mul", _X, op("Sigmoid", _X)),), _unary("Swish"),
        summary="x * Sigmoid(x) -> Swish", makes="Swish", since=24,
    ),
    fusion(
        "softmax", SOFTMAX, _softmax,
        summary="Exp(x - max) / ReduceSum(Exp(x - max)) -> Softmax", makes="Softmax",
    ),
)  # fmt: skip
