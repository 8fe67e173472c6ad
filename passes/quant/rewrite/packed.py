"""Weights of 4 bits stored as such: half the bytes of int8, and the same kernels.

int8 -> DequantizeLinear    becomes    int4 -> Cast to int8 -> DequantizeLinear

or, where blocks of inputs have multiples of their own, int4 and uint4 -> Cast -> Mul -> Reshape ->
DequantizeLinear; the weight of a MatMulIntegerToFloat likewise. ONNX Runtime computes what lies
before the DequantizeLinear when it opens the model, and then fuses that as if the weight had been
int8. A DequantizeLinear of int4 is not fused into a layer with int8 inputs. Its Cast takes int4
since version 1.23.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Array, DataType, Editor, Model, Node, Value
from onnxslim.passes.quant.audit.audit import audit
from onnxslim.passes.quant.marks import FloatProduct, FloatWeight, mark_of
from onnxslim.passes.quant.weights.blocks import block_of, factored

LOW, HIGH = -8, 7
"""What 4 bits hold."""

PACKED_BITS = 4

PACKED_SINCE = 21
"""The opset that has tensors of int4."""


def pack(editor: Editor) -> int:
    """Store the weights of the main graph that fit as int4, in place; returns how many numbers."""
    count = 0
    for node in list(editor.model.graph):
        place = _place(node)
        codes = None if place is None else _codes(node.inputs[place[0]], place[1])
        if place is None or codes is None:
            continue
        held = node.inputs[place[0]]
        made = list(_made(editor, codes, str(held.name) if held is not None else ""))
        editor.insert_before(node, made)
        editor.rewire([(node, place[0])], made[-1].outputs[0])
        count += int(codes.values.size)
    editor.remove_dead()
    return count


@dataclass(frozen=True)
class _Codes:
    """Numbers of 4 bits, and what to multiply them by; `shape` is that of the weight."""

    values: Array
    shape: tuple[int, ...]
    times: Array | None = None


def _made(editor: Editor, codes: _Codes, hint: str) -> Iterator[Node]:
    """The nodes that make int8 of the codes again."""

    def wide(array: Array, dtype: DataType, name: str) -> Node:
        held = editor.initializer(editor.model.graph, name, array.astype(dtype.numpy()))
        to = {"to": int(DataType.INT8)}
        return editor.node("Cast", [held], outputs=[f"{name}.bytes"], attributes=to)

    yield (first := wide(codes.values, DataType.INT4, f"{hint}.int4"))
    if codes.times is None:
        return
    yield (second := wide(codes.times, DataType.UINT4, f"{hint}.times"))
    factors = [first.outputs[0], second.outputs[0]]
    yield (product := editor.node("Mul", factors, outputs=[f"{hint}.blocks"]))
    shape = editor.initializer(editor.model.graph, f"{hint}.shape", np.array(codes.shape, np.int64))
    yield editor.node("Reshape", [product.outputs[0], shape], outputs=[f"{hint}.bytes"])


def why_not_packed(model: Model) -> str | None:
    """Why the weights of a quantized model must stay bytes; None where ONNX Runtime makes the same
    integer kernels of the packed model. The model is left as it is."""
    if (ir.opset(model) or 0) < PACKED_SINCE:
        return f"the model cannot be raised to opset {PACKED_SINCE}, the first with int4"
    twin = ir.snapshot(model)
    if not pack(Editor(twin)):
        return "no weight has only 4 bits"
    try:
        before, after = audit(model, {}).int8_kernels, audit(twin, {}).int8_kernels
    except RuntimeUnavailable as error:
        return f"ONNX Runtime does not take them: {error}"
    return None if after >= before else f"only {after} of {before} integer kernels would remain"


def _place(node: Node) -> tuple[int, int] | None:
    """Which input of a node that quant made is a weight, and the axis of its channels."""
    mark = mark_of(node)
    if isinstance(mark, FloatProduct):
        return 1, 1
    if isinstance(mark, FloatWeight) and mark.tensor is not None:
        return 0, int(ir.attribute(node, "axis", 1))
    return None


def _codes(held: Value | None, axis: int) -> _Codes | None:
    """Of a constant of integers that have at most 4 bits, perhaps by blocks."""
    constant, integers = ir.constant(held), ir.array(held)
    if constant is None or constant.dtype != DataType.INT8 or integers is None:
        return None
    if (integers >= LOW).all() and (integers <= HIGH).all():
        return _Codes(integers, integers.shape)
    return _in_blocks(integers, axis)


def _in_blocks(integers: Array, axis: int) -> _Codes | None:
    """Where the inputs of a channel, which lies on `axis`, go by blocks."""
    if axis not in (0, integers.ndim - 1) or integers.ndim < 2:
        return None
    channels = int(integers.shape[axis])
    flat = integers.reshape(channels, -1) if axis == 0 else integers.reshape(-1, channels).T
    block = block_of(int(flat.shape[1]))
    found = factored(flat, block, LOW, HIGH)
    if found is None:
        return None
    codes, times = found[0], found[1][:, :, None]
    if axis:
        codes, times = np.transpose(codes, (1, 2, 0)), np.transpose(times, (1, 2, 0))
    return _Codes(codes, integers.shape, times)
