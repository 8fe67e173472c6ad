"""Layers that stay in float between integers, written so that ONNX Runtime leaves them in float.

Where a Conv, ConvTranspose or Gemm with a float weight reads a DequantizeLinear and goes to a
QuantizeLinear, ONNX Runtime since 1.21 quantizes the weight by itself (WeightBiasQuantization): one
scale for all of it and 8 bits, also where their sums saturate. It looks at neither

- an operator of its own: a FusedConv without an activation is a Conv, and as fast; nor
- a layer whose bias is computed: int32 behind a DequantizeLinear, which stays in the graph. That
  costs the last bit of float32, and with Conv the blocked layout.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Node, Value
from onnxslim.passes.quant.contrib import DOMAIN, import_domain
from onnxslim.passes.quant.marks import FLOAT, FloatConv, FloatWeight, mark_of
from onnxslim.targets import Target

FUSED_CONV = f"{DOMAIN}::FusedConv"
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_PASSED = ("move", "absorbed")  # roles of what the runtime moves a Q or DQ past, and some more


def keep_float(editor: Editor, target: Target) -> int:
    """Write the float layers between pairs of this pass as such; returns how many.

    Only for targets that would quantize them (`Target.rounds`). To be called when all pairs are in
    the graph.
    """
    nodes = list(_threatened(editor, target))
    for node in nodes:
        if target.own.get(ir.op(node)) == FUSED_CONV:
            _as_fused(editor, node)
        else:
            _with_computed_bias(editor, node)
    return len(nodes)


def restore_conv(editor: Editor, node: Node) -> None:
    """The Conv that a FusedConv stands for."""
    made = _twin(editor, node, "Conv", "")
    del node.outputs[0].meta[FLOAT]
    _take_place(editor, node, made)


def _threatened(editor: Editor, target: Target) -> Iterator[Node]:
    for node in editor.model.graph:
        if ir.op(node) not in target.rounds or len(node.inputs) < 2:
            continue
        weight = ir.constant(node.inputs[1])
        if weight is None or weight.dtype != ir.DataType.FLOAT:
            continue
        if _comes_from_ours(node.inputs[0], target) and _goes_to_integers(node.outputs[0], target):
            yield node


def _comes_from_ours(value: Value | None, target: Target) -> bool:
    """Whether a DequantizeLinear that this pass put in makes a tensor, perhaps moved."""
    maker = None if value is None else value.producer()
    while maker is not None and _role(maker, target) == "move":
        source = maker.inputs[0]
        maker = None if source is None else source.producer()
    return maker is not None and ir.op(maker) == _DQ and mark_of(maker) is not None


def _goes_to_integers(value: Value, target: Target) -> bool:
    """Whether only QuantizeLinears read a tensor, perhaps moved or behind a Relu."""
    readers = {use.node for use in value.uses()}
    if not readers or value.is_graph_output():
        return False
    return all(
        ir.op(node) == _Q
        or (_role(node, target) in _PASSED and _goes_to_integers(node.outputs[0], target))
        for node in readers
    )


def _role(node: Node, target: Target) -> str | None:
    rule = target.static.get(ir.op(node))
    return None if rule is None else rule.role


def _as_fused(editor: Editor, node: Node) -> None:
    made = _twin(editor, node, "FusedConv", DOMAIN)
    import_domain(editor, node)
    _take_place(editor, node, made)
    made.outputs[0].meta[FLOAT] = FloatConv()


def _twin(editor: Editor, node: Node, op: str, domain: str) -> Node:
    """The same node as another operator."""
    return editor.node(
        op, node.inputs, outputs=[f"{node.outputs[0].name}.{op}"], domain=domain, like=node,
        attributes={a.name: a.value for a in node.attributes.values()},
    )  # fmt: skip


def _take_place(editor: Editor, node: Node, made: Node) -> None:
    name = node.name
    editor.replace_node(node, [made], [made.outputs[0]])
    made.name = name  # reports and audits call it as before


def _with_computed_bias(editor: Editor, node: Node) -> None:
    given = node.inputs[2] if len(node.inputs) > 2 else None
    bias = ir.array(given) if given is not None else np.zeros(_outputs(node), np.float32)
    if bias is None:
        return  # it is computed already
    step = np.float32(max(float(np.abs(bias).max(initial=0.0)), 1e-30) / 2**30)
    codes: Array = np.rint(bias.astype(np.float64) / float(step)).astype(np.int32)
    scope, hint = editor.scope_of(node), f"{node.outputs[0].name}.bias"
    inputs = [
        editor.initializer(scope, f"{hint}.int32", codes),
        editor.initializer(scope, f"{hint}.scale", np.asarray(step)),
    ]
    made = editor.node(_DQ, inputs, outputs=[f"{hint}.dequantized"])
    made.outputs[0].meta[FLOAT] = FloatWeight(ir.constant(given))
    editor.insert_before(node, [made])
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    editor.rewire([(node, 2)], made.outputs[0])


def _outputs(node: Node) -> int:
    """Output channels of a layer."""
    weight = ir.constant(node.inputs[1])
    assert weight is not None
    shape, op = weight.shape.numpy(), ir.op(node)
    if op == "ConvTranspose":
        return int(shape[1]) * int(ir.attribute(node, "group", 1))
    return int(shape[0] if op == "Conv" or ir.attribute(node, "transB", 0) else shape[1])
