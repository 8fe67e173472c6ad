"""Normalizations written out in elementary operators, and the operators that they are.

d / Sqrt(ReduceMean(d^2) + epsilon) * scale + bias, d = x - ReduceMean(x) -> LayerNormalization
x / Sqrt(ReduceMean(x^2) + epsilon) * scale                                -> RMSNormalization
Sqrt(ReduceSum(x^2)) -> ReduceL2; ReduceSum(x^2) -> ReduceSumSquare
The formulas are those of the ONNX operator specification (LayerNormalization 17, 23).
"""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Value
from onnxslim.passes.simplify.fuse.axes import axes_of, reduced_axes
from onnxslim.passes.simplify.fuse.fusion import Made, Make, fusion
from onnxslim.rewrite import Rule
from onnxslim.rewrite.pattern import (
    Any,
    Either,
    Match,
    Term,
    either,
    integers,
    number,
    op,
    single,
    weight,
)

_X = Any("x")


def _reduced(kind: str, of: Term, name: str) -> Either:
    """A reduction with its axes as an input or as an attribute."""
    return either(op(kind, of, integers(f"{name}_axes"), name=name), op(kind, of, name=name))


def _square(of: Term) -> Either:
    return either(op("Pow", of, number(2)), op("Mul", of, of))


def _over_root(of: Term, square_of: Term) -> Either:
    """of / Sqrt(ReduceMean(square_of^2) + epsilon), in the ways it is written."""
    mean = _reduced("ReduceMean", _square(square_of), "variance")
    root = op("Sqrt", op("Add", mean, single("epsilon")))
    inverse = either(op("Reciprocal", root), op("Div", number(1), root))
    power = op("Pow", op("Add", mean, single("epsilon")), number(-0.5))
    return either(op("Div", of, root), op("Mul", of, either(inverse, power)))


_CENTRED = op("Sub", _X, _reduced("ReduceMean", _X, "mean"))
_NORMAL = _over_root(_CENTRED, _CENTRED)
_SCALED = op("Mul", _NORMAL, weight("scale"))
LAYER_NORM = (op("Add", _SCALED, weight("bias")),)
LAYER_NORM_NO_BIAS = (_SCALED,)
RMS_NORM = (op("Mul", _over_root(_X, _X), weight("scale")),)


def _layer_norm(found: Match, facts: Facts) -> tuple[Made, ...] | str:
    if reduced_axes(found.nodes["mean"], facts.rank(found.values["x"])) is None:
        return "its axes are not known, or its mean drops them"
    return _normalization("LayerNormalization", found, facts)


def _layer_norm_alone(found: Match, facts: Facts) -> tuple[Made, ...] | str:
    """A scale without a bias; one with a bias behind it is for the longer pattern."""
    for use in found.root.outputs[0].uses():
        if ir.op(use.node) == "Add" and any(ir.constant(v) is not None for v in use.node.inputs):
            return "a constant is added to it: its bias"
    return _layer_norm(found, facts)


def _rms_norm(found: Match, facts: Facts) -> tuple[Made, ...] | str:
    return _normalization("RMSNormalization", found, facts)


def _normalization(kind: str, found: Match, facts: Facts) -> tuple[Made, ...] | str:
    """The axes must be the last ones, and scale and bias of their shape."""
    x = found.values["x"]
    shape = facts.shape(x)
    if shape is None:
        return "the rank of its input is not known"
    rank = len(shape)
    for name in ("mean", "variance"):
        if name not in found.nodes:
            continue
        axes = reduced_axes(found.nodes[name], rank)
        if axes is None or axes != tuple(range(axes[0], rank)):
            return "it does not normalize over the last axes"
        if axes != reduced_axes(found.nodes["variance"], rank):
            return "its mean and variance are over different axes"
    assert axes is not None
    inputs: list[Value] = [x]
    for name in ("scale", "bias"):
        if (value := found.values.get(name)) is not None:
            if found.array(name).shape != shape[axes[0] :]:
                return f"its {name} has not the shape of the axes that it normalizes"
            inputs.append(value)
    axis = axes[0] - rank
    attributes = {"axis": axis, "epsilon": found.number("epsilon")}
    return (Made(kind, tuple(inputs), attributes),)


_SQUARES = _reduced("ReduceSum", _square(_X), "sum")
L2 = (op("Sqrt", _SQUARES, name="root"),)
SUM_SQUARE = (
    op("ReduceSum", _square(_X), integers("sum_axes"), name="sum"),
    op("ReduceSum", _square(_X), name="sum"),
)


def _reduction(kind: str) -> Make:
    """The same reduction over the same axes, which are an input since opset 18."""

    def make(found: Match, facts: Facts) -> tuple[Made, ...] | str:
        node, x = found.nodes["sum"], found.values["x"]
        rank = facts.rank(x)
        axes = None if rank is None else axes_of(node, rank)
        if axes is None:
            return "its axes are not known"
        keep = int(ir.attribute(node, "keepdims", 1))
        if facts.opset(found.root) >= 18:
            return (Made(kind, (x, np.array(axes, np.int64)), {"keepdims": keep}),)
        return (Made(kind, (x,), {"axes": axes, "keepdims": keep}),)

    return make


RULES: tuple[Rule, ...] = (
    fusion(
        "layer-norm", LAYER_NORM, _layer_norm,
        summary="(x - mean) / Sqrt(variance + e) * scale + bias -> LayerNormalization",
        makes="LayerNormalization", since=17,
    ),
    fusion(
        "layer-norm-no-bias", LAYER_NORM_NO_BIAS, _layer_norm_alone,
        summary="(x - mean) / Sqrt(variance + e) * scale -> LayerNormalization",
        makes="LayerNormalization", since=17,
    ),
    fusion(
        "rms-norm", RMS_NORM, _rms_norm,
        summary="x / Sqrt(ReduceMean(x^2) + e) * scale -> RMSNormalization",
        makes="RMSNormalization", since=23,
    ),
    fusion(
        "reduce-l2", L2, _reduction("ReduceL2"),
        summary="Sqrt(ReduceSum(x^2)) -> ReduceL2", makes="ReduceL2",
    ),
    fusion(
        "reduce-sum-square", SUM_SQUARE, _reduction("ReduceSumSquare"),
        summary="ReduceSum(x^2) -> ReduceSumSquare", makes="ReduceSumSquare",
    ),
)  # fmt: skip
