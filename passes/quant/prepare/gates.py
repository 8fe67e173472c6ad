"""HardSwish in integers: a sum that saturates, and a product.

HardSwish(x) = x * g with the gate g = max(0, min(1, x/6 + 1/2)) (ONNX). A QuantizeLinear of x + 3
over [0, 6] saturates where the gate does, so that its integers, read with another scale, are g:

    x -> Add(3) -> Q(6/255, 0) -> DQ(1/255, 0) -> Mul(x, .)
"""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.ir import Editor, Node, Value
from onnxslim.passes.quant.marks import FLOAT, FloatGate

GATED = {"HardSwish": "Mul"}
"""Operators that are written as a gate, and the one of those written that computes the result."""

GATES_SINCE = 14
"""The opset that has them."""


def write_gate(editor: Editor, node: Node) -> None:
    """Replace a HardSwish whose input comes from a DequantizeLinear and whose output goes to a
    QuantizeLinear."""
    scope, name, x = editor.scope_of(node), str(node.outputs[0].name), node.inputs[0]
    assert x is not None

    def number(hint: str, content: float, kind: type) -> Value:
        return editor.initializer(scope, f"{name}.{hint}", np.asarray(content, kind))

    def convert(op: str, value: Value, scale: float, hint: str) -> Node:
        inputs = [value, number(f"{hint}.scale", scale, np.float32), zero]
        return editor.node(op, inputs, outputs=[f"{name}.{hint}"])

    zero = number("zero_point", 0, np.uint8)
    three = convert("DequantizeLinear", number("most", 255, np.uint8), 3 / 255, "three")
    add = editor.node("Add", [x, three.outputs[0]], outputs=[f"{name}.sum"])
    q = convert("QuantizeLinear", add.outputs[0], 6 / 255, "quantized_gate")
    gate = convert("DequantizeLinear", q.outputs[0], 1 / 255, "gate")
    mul = editor.node("Mul", [x, gate.outputs[0]], outputs=[f"{name}.gated"])
    mul.outputs[0].meta[FLOAT] = FloatGate(ir.op(node), node.name or "")
    editor.replace_node(node, [three, add, q, gate, mul], [mul.outputs[0]])
    mul.name = node.name  # reports and audits call it as before


def restore_gate(editor: Editor, node: Node, mark: FloatGate) -> None:
    """The operator again, in place of its product."""
    name = str(node.outputs[0].name)
    made = editor.node(mark.op, [node.inputs[0]], outputs=[f"{name}.float"])
    made.name = mark.name
    del node.outputs[0].meta[FLOAT]
    editor.replace_node(node, [made], [made.outputs[0]])
