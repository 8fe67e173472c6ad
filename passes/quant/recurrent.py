"""LSTM -> com.microsoft.DynamicQuantizeLSTM: int8 weights, inputs quantized as they come.

W [D, 4H, I] and R [D, 4H, H] become int8 [D, I, 4H] and [D, H, 4H], symmetric, with one scale per
direction and gate row. Gates, cell and biases stay float32. ONNX Runtime has no such kernel for
GRU and RNN.
"""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Node, TensorProtocol, Value
from onnxslim.passes.quant.contrib import DOMAIN, import_domain
from onnxslim.passes.quant.marks import FLOAT, FloatRecurrent
from onnxslim.passes.quant.qparams import TINY, rounded
from onnxslim.passes.quant.uncovered import other_type
from onnxslim.targets.forms import INT8, Numbers

SMALLEST = 16384
"""Numbers in the weights of a direction below which it is not faster (measured with VNNI)."""


def quantize_lstm(
    editor: Editor, node: Node, per_channel: bool, numbers: Numbers = INT8
) -> str | None:
    """Put the int8 operator in the place of an LSTM; returns why not, if so."""
    reason = _misfit(node)
    if reason is not None:
        return reason
    mark = FloatRecurrent(*(ir.constant(node.inputs[index]) for index in (1, 2)))
    integers: list[Value] = []
    parameters: list[Value] = []
    for index in (1, 2):
        value = node.inputs[index]
        weight = ir.array(value)
        assert value is not None
        assert weight is not None
        values, scale = quantize_gates(weight, per_channel, numbers)
        scope, hint = editor.scope_of(value), str(value.name)
        integers.append(editor.initializer(scope, f"{hint}.int8", values))
        parameters.append(editor.initializer(scope, f"{hint}.scale", scale))
        zero = np.zeros(scale.shape, np.int8)
        parameters.append(editor.initializer(scope, f"{hint}.zero_point", zero))
    rest = [*node.inputs[3:8], *[None] * (5 - len(node.inputs[3:8]))]
    made = _like(
        editor, node, "DynamicQuantizeLSTM", [node.inputs[0], *integers, *rest, *parameters]
    )
    import_domain(editor, node)
    made.outputs[0].meta[FLOAT] = mark
    _swap(editor, node, made)
    return None


def quantize_gates(
    weight: Array, per_channel: bool, numbers: Numbers = INT8
) -> tuple[Array, Array]:
    """Weights [D, 4H, K] as int8 [D, K, 4H] and scales float32 [D, 4H], or [D] for one each."""
    turned = np.ascontiguousarray(np.transpose(weight, (0, 2, 1)))
    magnitude = np.abs(turned).max(axis=1 if per_channel else (1, 2))
    scale = (magnitude.astype(np.float64) / numbers.high).astype(np.float32)
    scale = np.where(scale < TINY, np.float32(1), scale)
    spread = scale[:, None, :] if per_channel else scale[:, None, None]
    return rounded(turned / spread, numbers), scale


def restore_lstm(editor: Editor, node: Node, mark: FloatRecurrent) -> None:
    """The LSTM that was there before."""
    assert mark.weight is not None
    assert mark.recurrence is not None
    made = _like(editor, node, "LSTM", [node.inputs[0], None, None, *node.inputs[3:8]])
    tensors: tuple[TensorProtocol, ...] = (mark.weight, mark.recurrence)
    for index, tensor in enumerate(tensors, 1):
        hint = f"{ir.label(node)}.{'WR'[index - 1]}"
        made.replace_input_with(index, editor.initializer(editor.scope_of(node), hint, tensor))
    node.outputs[0].meta.pop(FLOAT, None)
    _swap(editor, node, made)


def _misfit(node: Node) -> str | None:
    for index, name in ((1, "weight"), (2, "recurrence weight")):
        held = node.inputs[index]
        weight = ir.array(held)
        if held is None or weight is None:
            return f"the {name} is computed, not a constant"
        if weight.dtype != np.float32:
            return other_type(f"the {name}", held.dtype)
        if not np.isfinite(weight).all():
            return f"the {name} holds NaN or infinity"
    if ir.attribute(node, "layout", 0):
        return "layout=1 (batch first) has no int8 kernel"
    numbers = sum(_per_direction(node.inputs[index]) for index in (1, 2))
    if numbers < SMALLEST:
        return f"its {numbers} weights are too few to gain anything"
    return None


def _per_direction(value: Value | None) -> int:
    weight = ir.array(value)
    assert weight is not None
    return int(weight.size // weight.shape[0])


def _like(editor: Editor, node: Node, op_type: str, inputs: list[Value | None]) -> Node:
    """A node with the same outputs and attributes; absent outputs stay absent."""
    recurrence = ir.array(node.inputs[2])
    attributes = {a.name: a.value for a in node.attributes.values() if a.name != "layout"}
    if op_type != "LSTM" and recurrence is not None:
        attributes["hidden_size"] = recurrence.shape[-1]
    made = editor.node(
        op_type,
        inputs,
        outputs=[f"{value.name or 'absent'}.lstm" for value in node.outputs],
        attributes=attributes,
        domain=DOMAIN if op_type != "LSTM" else "",
        like=node,
    )
    for old, new in zip(node.outputs, made.outputs, strict=True):
        if not old.name:
            new.name = ""
    return made


def _swap(editor: Editor, node: Node, made: Node) -> None:
    name = node.name
    stand_ins = [
        new if old.uses() or old.is_graph_output() else None
        for old, new in zip(node.outputs, made.outputs, strict=True)
    ]
    editor.replace_node(node, [made], stand_ins)
    made.name = name  # reports call it as before
