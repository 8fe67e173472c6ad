"""Data-free int8 for layers: MatMul | Gemm -> quantize the input as it comes, multiply integers.

x, W -> DynamicQuantizeLinear(x); MatMulInteger(xq, Wq); Cast; * (x_scale * w_scale) [; + bias]
which ONNX Runtime makes one DynamicQuantizeMatMul of. Wq is int8 with a scale per column, of as
many bits as the target adds up without saturation. LSTM: see recurrent.py.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear
from onnxslim.errors import EditError
from onnxslim.ir import DataType, Editor, Node, Scope, Value
from onnxslim.passes.quant.marks import FLOAT, FloatLayer
from onnxslim.passes.quant.qparams import QWeight, quantize_weight
from onnxslim.passes.quant.recurrent import quantize_lstm
from onnxslim.passes.quant.selection import first_output
from onnxslim.passes.quant.uncovered import other_type
from onnxslim.pipeline.base import Declined, Layer
from onnxslim.targets import Target
from onnxslim.targets.forms import Numbers

SMALLEST = 4096
"""Numbers in a weight below which quantizing the input costs more than it saves."""


def quantize_dynamic(
    editor: Editor,
    target: Target,
    excluded: Collection[str] = (),
    per_channel: bool = True,
    everywhere: bool = True,
) -> tuple[list[Layer], list[Declined]]:
    """Rewrite every layer of the target's dynamic operators; the rest with reasons.

    `excluded` are names of first outputs. Layers that read int8 weights already are skipped, and
    so are, unless `everywhere`, those of the main graph that the target also has static kernels
    for.
    """
    done: list[Layer] = []
    declined: list[Declined] = []
    weights: Weights = {}
    numbers = target.forms.get("int8", target.form).weight
    for node in list(ir.nodes(editor.model)):
        if ir.op(node) not in target.dynamic or first_output(node) in excluded:
            continue
        outside = node.graph is editor.model.graph and ir.op(node) in target.static
        if _is_quantized(node.inputs[1]) or (outside and not everywhere):
            continue
        row = Layer(ir.label(node), ir.op(node), "dynamic int8")  # has its outputs yet
        reason = _quantized(editor, node, weights, per_channel, numbers)
        if reason is None:
            done.append(row)
        else:
            declined.append(Declined(row.node, reason))
    editor.remove_dead()
    return done, declined


Weights = dict[tuple[int, bool, float, Scope], tuple[Value, Value, Value]]
"""Integers, scales and zero points by float tensor, layout, factor and scope: tied weights are
stored once."""


def _quantized(
    editor: Editor, node: Node, weights: Weights, per_channel: bool, numbers: Numbers
) -> str | None:
    """Rewrite one layer, or say why not."""
    try:
        if ir.op(node) == "LSTM":
            return quantize_lstm(editor, node, per_channel, numbers)
        layer = linear(node)
        reason = layer if isinstance(layer, str) else _misfit(layer)
        if not isinstance(layer, str) and reason is None:
            _rewrite(editor, layer, weights, per_channel, numbers)
    except EditError as error:
        return str(error)
    return reason


def _is_quantized(weight: Value | None) -> bool:
    producer = weight.producer() if weight is not None else None
    return producer is not None and ir.op(producer) == "DequantizeLinear"


def _misfit(layer: Linear) -> str | None:
    weight = ir.array(layer.weight)
    if weight is None or weight.dtype != np.float32:
        return other_type("the weight", layer.weight.dtype)
    if not np.isfinite(weight).all():
        return "the weight holds NaN or infinity"
    if weight.size < SMALLEST:
        return f"its {weight.size} weights are too few to gain anything"
    if ir.attribute(layer.node, "transA", 0):
        return "its input is transposed"
    if layer.beta != 1.0:
        return f"beta={layer.beta:g} scales its bias"
    return None


def _rewrite(
    editor: Editor, layer: Linear, weights: Weights, per_channel: bool, numbers: Numbers
) -> None:
    node, name = layer.node, str(layer.node.outputs[0].name)
    tensor, scope = ir.constant(layer.weight), editor.scope_of(layer.weight)
    key = id(tensor), layer.transposed, layer.alpha, scope
    if key not in weights:
        columns = np.ascontiguousarray(layer.matrix()[0].T)  # [in, out], alpha inside
        integers = quantize_weight(columns, 1, per_channel, numbers=numbers)
        weights[key] = _stored(editor, scope, str(layer.weight.name), integers)
    nodes = _chain(editor, layer, weights[key], name)
    mark = FloatLayer(ir.op(node), tensor, layer.transposed, node.name or "")
    nodes[-1].outputs[0].meta[FLOAT] = mark
    editor.replace_node(node, nodes, [nodes[-1].outputs[0]])


def _stored(editor: Editor, scope: Scope, hint: str, weight: QWeight) -> tuple[Value, Value, Value]:
    zero = np.zeros(len(weight.scale), np.int8)
    return (
        editor.initializer(scope, f"{hint}.int8", weight.values),
        editor.initializer(scope, f"{hint}.scale", weight.scale),
        editor.initializer(scope, f"{hint}.zero_point", zero),
    )


def _chain(
    editor: Editor, layer: Linear, weight: tuple[Value, Value, Value], name: str
) -> list[Node]:
    values, scale, zero = weight
    x = editor.node(
        "DynamicQuantizeLinear", [layer.input], outputs=[f"{name}.x", f"{name}.xs", f"{name}.xz"]
    )
    q, x_scale, x_zero = x.outputs
    product = editor.node("MatMulInteger", [q, values, x_zero, zero], outputs=[f"{name}.int32"])
    cast = editor.node(
        "Cast", product.outputs, outputs=[f"{name}.cast"], attributes={"to": DataType.FLOAT.value}
    )
    both = editor.node("Mul", [x_scale, scale], outputs=[f"{name}.scales"])
    scaled = editor.node("Mul", [cast.outputs[0], both.outputs[0]], outputs=[f"{name}.scaled"])
    nodes = [x, product, cast, both, scaled]
    if layer.bias is not None:
        nodes.append(editor.node("Add", [scaled.outputs[0], layer.bias], outputs=[f"{name}.sum"]))
    return nodes
