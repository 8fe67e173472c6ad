"""What is rewritten before quantizing, so that more of the graph becomes int8; exact in reals.

layer + BatchNormalization | Mul | Add | Sub | Div by constants -> layer    (fold/batchnorm.py)
x * HardSigmoid(x), x * Clip(x + 3, 0, 6) / 6 -> HardSwish    (where the target has it in int8)
layer + HardSigmoid(alpha, beta) -> layer' + Clip(0, 1)
MatMul of matrices + Add of a constant vector -> Gemm
x * 1, x / 1, x + 0 -> x
Max(x, number), Min(x, number) -> Clip
attention -> MultiHeadAttention, its projections -> one    (where the target has it of its own)
causal attention of a decoder -> GroupQueryAttention, the same    (likewise)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Editor, Node
from onnxslim.passes.fold.affine import ChannelAffine, fold_into_producer
from onnxslim.passes.fold.batchnorm import ARITHMETIC, BATCHNORM, rank_of, scalar_affine
from onnxslim.passes.quant.prepare.attention import FUSED_ATTENTION
from onnxslim.passes.quant.prepare.bounds import BOUNDS
from onnxslim.passes.quant.prepare.decoder_attention import CAUSAL_ATTENTION
from onnxslim.passes.quant.prepare.gates import GATED
from onnxslim.passes.quant.prepare.packed_heads import PACKED_HEADS
from onnxslim.passes.quant.prepare.projections import PROJECTIONS
from onnxslim.passes.simplify.fuse.activations import RULES as ACTIVATIONS
from onnxslim.passes.simplify.fuse.gemm import MATMUL_ADD
from onnxslim.rewrite import Outcome, Rewrite, Rule, apply


def canonicalize(
    editor: Editor, operators: Collection[str] = (), *, named: bool = False
) -> Outcome:
    """Apply the rules to all scopes, and remove what nothing reads any more.

    `operators`: what patterns should become: what the target computes in int8, or has of its own.
    `named`: options name some layers, so that no layers become one.
    """
    gates = [rule for rule in ACTIVATIONS if rule.makes in GATED]
    chosen = [
        rule for rule in (*gates, FUSED_ATTENTION, CAUSAL_ATTENTION) if rule.makes in operators
    ]
    if not named:
        chosen += [joined for fused, joined in JOINED if fused in chosen]
    outcome = apply(editor, (*chosen, *RULES))
    editor.remove_dead()
    return outcome


def _match_hard_sigmoid(node: Node, facts: Facts) -> Rewrite | str:
    """HardSigmoid(x) = max(0, min(1, alpha * x + beta)) (ONNX)."""
    x = node.inputs[0]
    assert x is not None
    factor = np.array([float(ir.attribute(node, "alpha", 0.2))])
    offset = np.array([float(ir.attribute(node, "beta", 0.5))])
    fold = fold_into_producer(ChannelAffine(x, factor, offset), node)
    if isinstance(fold, str):
        return fold
    return lambda editor: _replace_hard_sigmoid(editor, node, factor, offset)


def _replace_hard_sigmoid(
    editor: Editor, node: Node, factor: ir.Array, offset: ir.Array
) -> Sequence[Node]:
    """Mul, Add and Clip; the rule for arithmetic then folds the first two into the layer."""
    scope, name, x = editor.scope_of(node), str(node.outputs[0].name), node.inputs[0]
    constants = [
        editor.initializer(scope, f"{name}.{hint}", np.asarray(number, np.float32).reshape(()))
        for hint, number in (("alpha", factor), ("beta", offset), ("min", 0), ("max", 1))
    ]
    mul = editor.node("Mul", [x, constants[0]], outputs=[f"{name}.mul"])
    add = editor.node("Add", [mul.outputs[0], constants[1]], outputs=[f"{name}.add"])
    clip = editor.node("Clip", [add.outputs[0], *constants[2:]], outputs=[name])
    editor.replace_node(node, [mul, add, clip], [clip.outputs[0]])
    return [mul, add]


def _match_nothing(node: Node, facts: Facts) -> Rewrite | str:
    """Mul or Div by one, Add or Sub of zero, by constants that do not change the shape."""
    if scalar_affine(node) != (1.0, 0.0):
        return "its constant changes the numbers"
    at = 0 if ir.constant(node.inputs[0]) is None else 1
    x, constant = node.inputs[at], ir.constant(node.inputs[1 - at])
    assert x is not None
    assert constant is not None
    if rank_of(x) < len(constant.shape):
        return "its constant may change the rank"
    if node.outputs[0].is_graph_output():
        return "its output is a graph output"

    def rewrite(editor: Editor) -> Sequence[Node]:
        readers = [use.node for use in node.outputs[0].uses()]
        editor.replace_node(node, [], [x])
        return readers

    return rewrite


RULES = (
    Rule("hard_sigmoid", frozenset({"HardSigmoid"}), _match_hard_sigmoid),
    Rule("nothing", ARITHMETIC.ops, _match_nothing),
    BOUNDS,
    MATMUL_ADD,
    BATCHNORM,
    ARITHMETIC,
)

JOINED = ((FUSED_ATTENTION, PROJECTIONS), (CAUSAL_ATTENTION, PACKED_HEADS))
"""Rules for attention, and what makes one product of those that it reads."""
