"""BatchNormalization and constant Mul, Add, Sub, Div folded into the layer before them.

y = gamma * (x - mean) / sqrt(var + epsilon) + beta  (ONNX BatchNormalization, inference mode)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Array, Editor, Node, Value
from onnxslim.passes.fold.affine import LAYERS, ChannelAffine, Normal, fold_into_producer
from onnxslim.pipeline.base import Declined
from onnxslim.rewrite import Rewrite, Rule, apply


def fuse_batchnorm(editor: Editor) -> tuple[int, list[Declined]]:
    """Fold every BatchNormalization that follows a layer of its own into it, in all scopes.

    Returns how many, and the others with their reasons. What a BatchNormalization says about the
    distribution of its output is kept: see `normal_of`.
    """
    outcome = apply(editor, [BATCHNORM])
    editor.remove_dead()
    return outcome.count, [Declined(miss.node, miss.reason) for miss in outcome.near_misses]


def _match_batchnorm(node: Node, facts: Facts) -> Rewrite | str:
    affine = batchnorm_affine(node)
    return affine if isinstance(affine, str) else fold_into_producer(affine, node)


def batchnorm_affine(node: Node) -> ChannelAffine | str:
    """What a BatchNormalization does to each channel, or why it is no such map."""
    if ir.attribute(node, "training_mode", 0):
        return "it is in training mode: its statistics come from each batch"
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return "its running statistics are read"
    if ir.attribute(node, "spatial", 1) == 0:
        return "it normalizes every position by itself (spatial=0)"
    constants = [ir.array(value) for value in node.inputs[1:5]]
    if any(value is None for value in constants):
        return "its scale, bias, mean or variance is computed, not a constant"
    gamma, beta, mean, var = (value.astype(np.float64) for value in constants if value is not None)
    factor = gamma / np.sqrt(var + float(ir.attribute(node, "epsilon", 1e-5)))
    x = node.inputs[0]
    assert x is not None
    return ChannelAffine(x, factor, beta - mean * factor, normal=Normal(beta, np.abs(gamma)))


@dataclass(frozen=True)
class Arithmetic:
    """y = factor * x + offset by constants, float64, in the shape of the node's constant or [1]."""

    x: Value
    factor: Array
    offset: Array
    constant: Array


def arithmetic(node: Node) -> Arithmetic | str:
    """What a Mul, Add, Sub or Div by a constant does, or why it is no such map."""
    sides = [ir.array(value) for value in node.inputs]
    if (sides[0] is None) == (sides[1] is None):
        return "neither or both of its inputs are constants"
    at = 0 if sides[0] is None else 1  # of the activation
    x, constant = node.inputs[at], sides[1 - at]
    assert x is not None
    assert constant is not None
    if constant.dtype.kind != "f":
        return f"its constant is {constant.dtype}"
    pair = _ARITHMETIC[ir.op(node), at](constant.astype(np.float64))
    if pair is None:
        return "it divides by its input, or by zero"
    return Arithmetic(x, *pair, constant)


def _match_arithmetic(node: Node, facts: Facts) -> Rewrite | str:
    does = arithmetic(node)
    if isinstance(does, str):
        return does
    if not _by_channel(does.x, does.constant):
        return f"its constant of shape {list(does.constant.shape)} does not go by channel"
    affine = ChannelAffine(does.x, does.factor.ravel(), does.offset.ravel())
    return fold_into_producer(affine, node)


def _by_channel(x: Value, constant: Array) -> bool:
    """Whether broadcasting a constant gives each channel of the layer one number."""
    if constant.ndim > rank_of(x):
        return False
    if constant.size == 1:
        return True
    layer = x.producer()
    if layer is not None and ir.op(layer) == "Gemm":
        return bool(constant.shape[-1] == constant.size)
    spatial = rank_of(x) - 2
    by_channel = constant.ndim > spatial and constant.shape[-1 - spatial] == constant.size
    return bool(spatial > 0 and by_channel)


def rank_of(x: Value) -> int:
    """The rank of a tensor: that of the weight of its layer, else as declared; 0 if unknown."""
    layer = x.producer()
    if layer is not None and ir.op(layer) in LAYERS:
        weight = ir.constant(layer.inputs[1])
        return 0 if weight is None else len(weight.shape)
    return 0 if x.shape is None else len(x.shape)


_One = Callable[[Array], "tuple[Array, Array] | None"]


def _inverse(c: Array) -> tuple[Array, Array] | None:
    return None if (c == 0).any() else (1 / c, np.zeros(1))


_ARITHMETIC: dict[tuple[str, int], _One] = {
    ("Mul", 0): lambda c: (c, np.zeros(1)),
    ("Mul", 1): lambda c: (c, np.zeros(1)),
    ("Add", 0): lambda c: (np.ones(1), c),
    ("Add", 1): lambda c: (np.ones(1), c),
    ("Sub", 0): lambda c: (np.ones(1), -c),
    ("Sub", 1): lambda c: (-np.ones(1), c),
    ("Div", 0): _inverse,
    ("Div", 1): lambda c: None,
}

BATCHNORM = Rule(
    "batchnorm", frozenset({"BatchNormalization"}), _match_batchnorm,
    "layer + BatchNormalization -> layer with other weights", exact=False,
)  # fmt: skip
ARITHMETIC = Rule(
    "affine", frozenset({"Mul", "Add", "Sub", "Div"}), _match_arithmetic,
    "layer + arithmetic with a constant for each channel -> layer with other weights", exact=False,
)  # fmt: skip


def scalar_affine(node: Node) -> tuple[float, float] | None:
    """(factor, offset) of a Mul, Add, Sub or Div by one constant number, else None."""
    does = arithmetic(node) if ir.op(node) in ARITHMETIC.ops else ""
    if isinstance(does, str) or does.constant.size != 1:
        return None
    return float(does.factor.ravel()[0]), float(does.offset.ravel()[0])
