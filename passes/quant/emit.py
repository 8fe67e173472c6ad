"""Puts a plan into the graph: Q and DQ on edges, integers for weights, biases and constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Node, Use, Value
from onnxslim.passes.quant.marks import FLOAT, FloatEdge, FloatWeight
from onnxslim.passes.quant.plan import Edge, LayerPlan, Plan
from onnxslim.passes.quant.qparams import QParams, QWeight, quantize_bias


def emit(editor: Editor, plan: Plan) -> None:
    """Carry the plan out. Afterwards no node of the plan reads a float weight any more."""
    weights: dict[tuple[int, int], Value] = {}
    for layer in plan.layers.values():
        _emit_layer(editor, layer, weights)
    for (node, index), params in plan.constants.items():
        _emit_constant(editor, node, index, params)
    for edge in sorted(plan.edges.values(), key=lambda e: e.chain.out.is_graph_output()):
        _emit_edge(editor, plan, edge)  # graph outputs last: their nodes are replaced
    editor.remove_dead()


def _emit_layer(editor: Editor, plan: LayerPlan, weights: dict[tuple[int, int], Value]) -> None:
    node, layer = plan.layer.node, plan.layer
    tensor = ir.constant(layer.weight)
    key = id(tensor), hash(plan.weight.scale.tobytes())
    if key not in weights:
        weights[key] = _weight(editor, node, layer.weight, plan.weight)
    editor.rewire([(node, layer.weight_index)], weights[key])
    if plan.bias is not None:
        _set_bias(editor, plan, _bias(editor, plan))


def _weight(editor: Editor, node: Node, weight: Value, quantized: QWeight) -> Value:
    hint, scope = str(weight.name), editor.scope_of(node)
    inputs = [
        editor.initializer(scope, f"{hint}.int8", quantized.values),
        editor.initializer(scope, f"{hint}.scale", quantized.scale),
        editor.initializer(scope, f"{hint}.zero_point", np.zeros(quantized.scale.shape, np.int8)),
    ]  # QGemm is not made without the zero points
    made = _dequantize(editor, inputs, f"{hint}.dequantized", quantized.axis)
    made.outputs[0].meta[FLOAT] = FloatWeight(ir.constant(weight))
    editor.insert_before(node, [made])
    return made.outputs[0]


def _bias(editor: Editor, plan: LayerPlan) -> Value:
    assert plan.bias is not None
    node, scope = plan.layer.node, editor.scope_of(plan.layer.node)
    hint = f"{plan.layer.weight.name}.bias"
    values, scale = quantize_bias(plan.bias, plan.x.scale, plan.weight.scale)
    inputs = [
        editor.initializer(scope, f"{hint}.int32", values),
        editor.initializer(scope, f"{hint}.scale", scale),
    ]
    made = _dequantize(editor, inputs, f"{hint}.dequantized", 0)
    made.outputs[0].meta[FLOAT] = FloatWeight(ir.constant(plan.layer.bias))
    editor.insert_before(node, [made])
    return made.outputs[0]


def _set_bias(editor: Editor, plan: LayerPlan, bias: Value) -> None:
    node = plan.layer.node
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    editor.rewire([(node, 2)], bias)


def _dequantize(editor: Editor, inputs: Sequence[Value], hint: str, axis: int | None) -> Node:
    attributes = {} if axis is None else {"axis": axis}
    return editor.node("DequantizeLinear", inputs, outputs=[hint], attributes=attributes)


def _emit_constant(editor: Editor, node: Node, index: int, params: QParams) -> None:
    value = node.inputs[index]
    constant = ir.array(value)
    assert value is not None
    assert constant is not None
    scope, hint = editor.scope_of(node), str(value.name)
    integers = editor.initializer(scope, f"{hint}.uint8", params.quantize(constant))
    made = _dequantize(
        editor, [integers, *_scalars(editor, node, hint, params)], f"{hint}.dequantized", None
    )
    made.outputs[0].meta[FLOAT] = FloatWeight(ir.constant(value))
    editor.insert_before(node, [made])
    editor.rewire([(node, index)], made.outputs[0])


def _scalars(editor: Editor, node: Node | None, hint: str, params: QParams) -> list[Value]:
    scope = editor.model.graph if node is None else editor.scope_of(node)
    scale = editor.initializer(scope, f"{hint}.scale", np.asarray(params.scale, np.float32))
    zero: Array = np.asarray(params.zero_point, np.uint8)
    return [scale, editor.initializer(scope, f"{hint}.zero_point", zero)]


def _emit_edge(editor: Editor, plan: Plan, edge: Edge) -> None:
    chain = edge.chain
    if edge.everywhere and chain.out.is_graph_output():
        _emit_output(editor, edge)
        return
    uses = _uses(plan, edge)
    divided = [] if edge.smooth is None else [_divide(editor, chain.at, edge.smooth)]
    pair = _pair(editor, edge, divided[0].outputs[0] if divided else chain.at)
    if chain.at is chain.out:
        editor.insert_on_edge(chain.at, [*divided, *pair], pair[-1].outputs[0], uses)
    else:
        editor.insert_after(chain.nodes[-1], pair)
        editor.rewire(uses, pair[-1].outputs[0])


def _pair(editor: Editor, edge: Edge, source: Value) -> list[Node]:
    """Q and DQ, which share their parameters unless the DQ absorbs an affine map."""
    hint = str(edge.chain.out.name)
    scalars = _scalars(editor, None, hint, edge.quantize)
    q = editor.node("QuantizeLinear", [source, *scalars], outputs=[f"{hint}.quantized"])
    if edge.dequantize != edge.quantize:
        scalars = _scalars(editor, None, f"{hint}.affine", edge.dequantize)
    dq = _dequantize(editor, [q.outputs[0], *scalars], f"{hint}.dequantized", None)
    dq.outputs[0].meta[FLOAT] = FloatEdge(edge.chain.affine, edge.smooth is not None)
    return [q, dq]


def _divide(editor: Editor, value: Value, smooth: Array) -> Node:
    factors = editor.initializer(
        editor.model.graph, f"{value.name}.smooth", (1 / smooth).astype(np.float32)
    )
    return editor.node("Mul", [value, factors], outputs=[f"{value.name}.smoothed"])


def _uses(plan: Plan, edge: Edge) -> list[Use]:
    """All reading places where the tensor is made as integers, else those of int8 nodes."""
    if not edge.everywhere:
        return plan.regions.readers(edge.chain.out)
    return [(use.node, use.idx) for use in edge.chain.out.uses()]


def _emit_output(editor: Editor, edge: Edge) -> None:
    """The DQ takes the place and the name of a graph output."""
    at, last = edge.chain.at, edge.chain.out.producer()
    assert last is not None
    if at is not edge.chain.out:
        pair = _pair(editor, edge, at)
        editor.replace_node(last, pair, [pair[-1].outputs[0]])
        return
    twin = editor.node(
        last.op_type,
        last.inputs,
        outputs=[f"{value.name}.float" for value in last.outputs],
        attributes={a.name: a.value for a in last.attributes.values()},
        like=last,
    )
    pair = _pair(editor, edge, twin.outputs[0])
    editor.replace_node(last, [twin, *pair], [pair[-1].outputs[0]])
    twin.name, last.name = last.name, twin.name
