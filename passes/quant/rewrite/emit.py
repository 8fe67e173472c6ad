"""Puts a plan into the graph: Q and DQ on edges, integers for weights, biases and constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Node, Scope, Use, Value
from onnxslim.passes.quant.marks import FLOAT, FloatAdded, FloatEdge, FloatWeight
from onnxslim.passes.quant.prepare.added import added_constant
from onnxslim.passes.quant.prepare.gates import GATED, write_gate
from onnxslim.passes.quant.qparams import QParams, QWeight, array_type, quantize_bias
from onnxslim.passes.quant.rewrite.normalized import Given, divided
from onnxslim.passes.quant.rewrite.plan import Edge, Plan
from onnxslim.passes.quant.weights.layers import LayerPlan


def emit(editor: Editor, plan: Plan) -> None:
    """Carry the plan out. Afterwards no node of the plan reads a float weight any more."""
    emitter = _Emitter(editor, plan)
    for layer in plan.layers.values():
        emitter.layer(layer)
    for (node, index), params in plan.constants.items():
        emitter.constant(node, index, params)
    for edge in sorted(plan.edges.values(), key=lambda e: e.chain.out.is_graph_output()):
        emitter.edge(edge)  # graph outputs last: their nodes are replaced
    for node in plan.regions.nodes:
        if ir.op(node) in GATED and node.graph is not None:
            write_gate(editor, node)
    editor.remove_dead()


@dataclass
class _Emitter:
    """The edits of one plan; equal weights and equal zero points are stored once."""

    editor: Editor
    plan: Plan
    weights: dict[tuple[int, int, bytes], Value] = field(
        default_factory=dict["tuple[int, int, bytes]", Value]
    )
    shared: dict[tuple[str, bytes], Value] = field(default_factory=dict["tuple[str, bytes]", Value])

    @property
    def scope(self) -> Scope:
        """Static quantization is of the main graph only."""
        return self.editor.model.graph

    # Weights, biases, constants

    def layer(self, plan: LayerPlan) -> None:
        """Integers for the weight and the bias of a layer."""
        node, weight = plan.layer.node, plan.layer.weight
        key = id(ir.constant(weight)), plan.weight.axis, plan.weight.scale.tobytes()
        if key not in self.weights:
            self.weights[key] = self._weight(node, weight, plan.weight)
        self.editor.rewire([(node, plan.layer.weight_index)], self.weights[key])
        if plan.bias is not None:
            self._bias(plan, plan.bias)
        if plan.shift is not None:
            self._shift(plan, plan.shift)

    def _weight(self, node: Node, weight: Value, quantized: QWeight) -> Value:
        hint = str(weight.name)
        written = np.asarray(quantized.scale[0] if quantized.per_tensor else quantized.scale)
        inputs = [
            self.editor.initializer(
                self.scope, f"{hint}.{quantized.numbers.dtype}", quantized.values
            ),
            self.editor.initializer(self.scope, f"{hint}.scale", written),
            self._once("zeros", np.zeros(written.shape, quantized.values.dtype)),
        ]  # QGemm is not made without the zero points
        axis = None if quantized.per_tensor else quantized.axis
        made = self._dequantize(inputs, hint, axis)
        made.outputs[0].meta[FLOAT] = FloatWeight(ir.constant(weight))
        self.editor.insert_before(node, [made])  # layers come in the order of the graph
        return made.outputs[0]

    def _bias(self, plan: LayerPlan, bias: Array) -> None:
        node, hint = plan.layer.node, f"{plan.layer.weight.name}.bias"
        if self.plan.regions.form.bias == "float32":
            self._float_bias(plan, bias.astype(np.float32))
            return
        values, scale = quantize_bias(bias, plan.x.scale, plan.weight.scale)
        per_tensor = plan.weight.per_tensor
        scale = np.asarray(scale[0]) if per_tensor else scale
        inputs = [
            self.editor.initializer(self.scope, f"{hint}.int32", values),
            self.editor.initializer(self.scope, f"{hint}.scale", scale),
        ]
        made = self._dequantize(inputs, hint, None if per_tensor else 0)
        made.outputs[0].meta[FLOAT] = FloatWeight(ir.constant(plan.layer.bias))
        self.editor.insert_before(node, [made])
        self._give_bias(node, made.outputs[0])

    def _float_bias(self, plan: LayerPlan, bias: Array) -> None:
        given = plan.layer.bias_vector() if plan.layer.bias is not None else None
        if given is None or not np.array_equal(given.astype(np.float32), bias):
            hint = f"{plan.layer.weight.name}.bias"
            self._give_bias(plan.layer.node, self.editor.initializer(self.scope, hint, bias))

    def _give_bias(self, node: Node, bias: Value) -> None:
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        self.editor.rewire([(node, 2)], bias)

    def _shift(self, plan: LayerPlan, shift: Array) -> None:
        place = added_constant(plan.layer)
        assert place is not None
        node, index = place
        given = node.inputs[index]
        constant = ir.array(given)
        assert given is not None
        assert constant is not None
        moved = (constant + shift.reshape(constant.shape)).astype(np.float32)
        node.outputs[0].meta[FLOAT] = FloatAdded(ir.constant(given), index)
        own = self.editor.initializer(self.scope, f"{given.name}.corrected", moved)
        self.editor.rewire([place], own)

    def constant(self, node: Node, index: int, params: QParams) -> None:
        """Integers for a constant operand."""
        value = node.inputs[index]
        constant = ir.array(value)
        assert value is not None
        assert constant is not None
        hint = str(value.name)
        integers = self.editor.initializer(
            self.scope, f"{hint}.{params.numbers.dtype}", params.quantize(constant)
        )
        made = self._dequantize([integers, *self._scalars(hint, params)], hint, None)
        made.outputs[0].meta[FLOAT] = FloatWeight(ir.constant(value))
        self.editor.insert_before(node, [made])
        self.editor.rewire([(node, index)], made.outputs[0])

    # Edges

    def edge(self, edge: Edge) -> None:
        """Q and DQ on a tensor."""
        chain = edge.chain
        if edge.everywhere and chain.out.is_graph_output():
            self._output(edge)
            return
        uses = self._uses(edge)
        steps, scaled = self._smoothed(edge, uses)
        pair = self._pair(edge, steps[0].outputs[0] if steps else chain.at, scaled)
        if chain.at is chain.out:
            self.editor.insert_on_edge(chain.at, [*steps, *pair], pair[-1].outputs[0], uses)
        else:
            self.editor.insert_after(chain.nodes[-1], pair)
            self.editor.rewire(uses, pair[-1].outputs[0])

    def _output(self, edge: Edge) -> None:
        """The DQ takes the place and the name of a graph output."""
        at, last = edge.chain.at, edge.chain.out.producer()
        assert last is not None
        if at is not edge.chain.out:
            pair = self._pair(edge, at)
            self.editor.replace_node(last, pair, [pair[-1].outputs[0]])
            return
        twin = self.editor.node(
            last.op_type,
            last.inputs,
            outputs=[f"{value.name}.float" for value in last.outputs],
            attributes={a.name: a.value for a in last.attributes.values()},
            like=last,
        )
        pair = self._pair(edge, twin.outputs[0])
        self.editor.replace_node(last, [twin, *pair], [pair[-1].outputs[0]])
        twin.name = last.name  # reports and audits call it as before

    def _uses(self, edge: Edge) -> list[Use]:
        """All reading places where the tensor is made as integers, else those of int8 nodes."""
        if not edge.everywhere:
            return self.plan.regions.readers(edge.chain.out)
        return [(use.node, use.idx) for use in edge.chain.out.uses()]

    def _pair(self, edge: Edge, source: Value, scaled: Given = ()) -> list[Node]:
        """Q and DQ, which share their parameters unless the DQ absorbs an affine map."""
        hint = str(edge.chain.out.name)
        scalars = self._scalars(hint, edge.quantize)
        q = self.editor.node("QuantizeLinear", [source, *scalars], outputs=[f"{hint}.quantized"])
        if edge.dequantize != edge.quantize:
            scalars = self._scalars(f"{hint}.affine", edge.dequantize)
        dq = self._dequantize([q.outputs[0], *scalars], hint, None)
        dq.outputs[0].meta[FLOAT] = FloatEdge(
            edge.chain.affine, edge.smooth is not None and not scaled, scaled
        )
        return [q, dq]

    def _smoothed(self, edge: Edge, uses: Sequence[Use]) -> tuple[list[Node], Given]:
        """What divides a tensor: a node, or the normalization that makes it."""
        if edge.smooth is None:
            return [], ()
        scaled = divided(self.editor, edge.chain.at, uses, edge.smooth)
        return ([] if scaled else [self._divide(edge.chain.at, edge.smooth)]), scaled

    def _divide(self, value: Value, smooth: Array) -> Node:
        factors = (1 / smooth).astype(np.float32)
        vector = self.editor.initializer(self.scope, f"{value.name}.smooth", factors)
        return self.editor.node("Mul", [value, vector], outputs=[f"{value.name}.smoothed"])

    # Small parts

    def _dequantize(self, inputs: Sequence[Value], hint: str, axis: int | None) -> Node:
        attributes = {} if axis is None else {"axis": axis}
        return self.editor.node(
            "DequantizeLinear", inputs, outputs=[f"{hint}.dequantized"], attributes=attributes
        )

    def _scalars(self, hint: str, params: QParams) -> list[Value]:
        """Scale and zero point; the latter is shared by all that have the same."""
        scale = np.asarray(params.scale, np.float32)
        zero = np.asarray(params.zero_point, array_type(params.numbers))
        return [
            self.editor.initializer(self.scope, f"{hint}.scale", scale),
            self._once(f"zero_point_{params.zero_point}", zero),
        ]

    def _once(self, hint: str, content: Array) -> Value:
        key = hint, content.tobytes()
        if key not in self.shared:
            self.shared[key] = self.editor.initializer(self.scope, hint, content)
        return self.shared[key]
