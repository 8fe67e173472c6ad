"""Products of integers of which no processor saturates a sum.

x86-64 without VNNI adds products of uint8 and int8 in pairs, in 16 bits that saturate; those of two
uint8 in 32 bits. So int8 weights become uint8, with zero points that are as much larger: the same
numbers, whatever machine multiplies them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Model, Node, Value

SHIFT = 128

WEIGHTS: Mapping[str, Sequence[tuple[int, int, int]]] = {
    "ConvInteger": ((1, 1, 3),),
    "MatMulInteger": ((1, 1, 3),),
    "QLinearConv": ((3, 4, 5),),
    "QLinearMatMul": ((3, 4, 5),),
    "com.microsoft::DynamicQuantizeLSTM": ((1, 8, 9), (2, 10, 11)),
    "com.microsoft::DynamicQuantizeMatMul": ((1, 2, 3),),
    "com.microsoft::MatMulIntegerToFloat": ((1, 3, 5),),
    "com.microsoft::QGemm": ((3, 4, 5),),
}
"""By operator, where each weight is, its scale (itself, where there is none) and zero point."""


def exact(model: Model) -> Model:
    """A copy that gives on any processor what the model gives where no sum saturates; the model
    itself where nothing needs to change."""
    if not any(ir.op(node) in WEIGHTS for node in ir.nodes(model)):
        return model
    twin = ir.snapshot(model)
    editor = Editor(twin)
    for node in list(ir.nodes(twin)):
        for weight, scale, zero in WEIGHTS.get(ir.op(node), ()):
            _shift(editor, node, weight, scale, zero)
    return twin


def _shift(editor: Editor, node: Node, weight: int, scale: int, zero: int) -> None:
    held, codes = node.inputs[weight], ir.array(node.inputs[weight])
    if held is None or codes is None or codes.dtype != np.int8:
        return
    given = node.inputs[zero] if zero < len(node.inputs) else None
    zeros = _zeros(node, weight, scale) if given is None else ir.array(given)
    if zeros is None:
        return
    place, hint = editor.scope_of(node), str(held.name)
    node.replace_input_with(weight, editor.initializer(place, f"{hint}.uint8", _shifted(codes)))
    if zero >= len(node.inputs):
        node.resize_inputs(zero + 1)
    point: Value = editor.initializer(place, f"{hint}.point", _shifted(zeros))
    node.replace_input_with(zero, point)


def _zeros(node: Node, weight: int, scale: int) -> Array | None:
    """Zero points that are left out: one, or as many as there are scales."""
    scales = None if scale == weight else ir.array(node.inputs[scale])
    if scale != weight and scales is None:
        return None
    return np.zeros(() if scales is None else scales.shape, np.int8)


def _shifted(codes: Array) -> Array:
    return np.asarray(codes.astype(np.int16) + SHIFT, np.uint8)
