"""Where a constant is added to the channels of a tensor, in the operator that makes it or before.

LayerNormalization: its bias. Gemm, and BatchNormalization of matrices: likewise. Add of a
constant: that. Add of two tensors: the constant in one of them that nothing else reads. Split along
the channels: the part of what it splits. MultiHeadAttention: that of the values, as each row of
what they are weighted with sums to one, so that f(V + z) = f(V) + z.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear
from onnxslim.ir import Array, DataType, Editor, Node, Value
from onnxslim.passes.quant.contrib import DOMAIN
from onnxslim.passes.quant.prepare.absorb import write_bias
from onnxslim.passes.quant.prepare.attention import ATTENTION
from onnxslim.passes.quant.prepare.neighbours import only_reader


@dataclass(frozen=True)
class Offset:
    """Input `index` of a node adds one number to each of `size` channels of its output; those of
    the tensor that was asked about begin at `first`."""

    node: Node
    index: int
    size: int
    first: int = 0

    def spread(self, change: Array) -> Array:
        """A change of the tensor's channels [C] as one of all numbers of the constant, [size]."""
        whole = np.zeros(self.size)
        whole[self.first : self.first + len(change)] = change
        return whole


def offset_of(value: Value, channels: int) -> Offset | None:
    """The constant float32 that is added to the channels, on the last axis, of a tensor; None where
    there is none, or it reaches other tensors too."""
    node = value.producer()
    find = None if node is None else _FIND.get(ir.op(node))
    return None if node is None or find is None else find(node, value, channels)


def add_to(editor: Editor, offset: Offset, change: Array) -> None:
    """Add a vector [size] to the constant, in place; an absent one is made."""
    node, index = offset.node, offset.index
    layer = linear(node)
    if isinstance(layer, Linear):
        bias = layer.bias_vector()
        assert bias is not None
        write_bias(editor, layer, bias + change)
        return
    old = ir.array(node.inputs[index]) if index < len(node.inputs) else None
    if old is not None:
        content = (old + change.reshape(old.shape)).astype(np.float32)
        editor.replace_initializer(editor.unshare(node, index), content)
        return
    hint = f"{node.outputs[0].name}.bias"
    made = editor.initializer(editor.scope_of(node), hint, change.astype(np.float32))
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    editor.rewire([(node, index)], made)


def _before(value: Value | None, node: Node, channels: int) -> Offset | None:
    """Of what a node reads, if nothing else does."""
    alone = value is not None and only_reader(value) is node
    return offset_of(value, channels) if alone and value is not None else None


def _normalized(node: Node, value: Value, channels: int) -> Offset | None:
    scale = _vector(node.inputs[1], channels)
    absent = len(node.inputs) < 3 or node.inputs[2] is None
    fits = scale and (absent or _vector(node.inputs[2], channels)) and value is node.outputs[0]
    return Offset(node, 2, channels) if fits else None


def _batch_normalized(node: Node, value: Value, channels: int) -> Offset | None:
    """Its channels are on axis 1, the last one of what a Gemm reads."""
    matrix = any(ir.op(reader) == "Gemm" for reader, _ in value.uses())
    fits = matrix and _vector(node.inputs[2], channels) and len(node.outputs) == 1
    return Offset(node, 2, channels) if fits else None


def _vector(value: Value | None, channels: int) -> bool:
    """Whether it is a constant with one float32 number per channel."""
    tensor = ir.constant(value)
    return (
        tensor is not None
        and tensor.dtype == DataType.FLOAT
        and tuple(tensor.shape)[-1:] == (channels,)
        and tensor.size == channels
    )


def _summed(node: Node, value: Value, channels: int) -> Offset | None:
    for index, other in enumerate(node.inputs):
        if _vector(other, channels) and channels > 1:
            return Offset(node, index, channels)
    found = (_before(other, node, channels) for other in node.inputs)
    return next((offset for offset in found if offset is not None), None)


def _gemm(node: Node, value: Value, channels: int) -> Offset | None:
    layer = linear(node)
    if not isinstance(layer, Linear) or layer.out_features != channels:
        return None
    return None if layer.bias_vector() is None else Offset(node, 2, channels)


def _split(node: Node, value: Value, channels: int) -> Offset | None:
    sizes = ir.array(node.inputs[1]) if len(node.inputs) > 1 else None
    if sizes is None or ir.attribute(node, "axis", 0) != -1:
        return None
    whole = _before(node.inputs[0], node, int(sizes.sum()))
    first = int(sizes[: node.outputs.index(value)].sum())
    return None if whole is None else replace(whole, first=whole.first + first)


def _attention(node: Node, value: Value, channels: int) -> Offset | None:
    past = any(given is not None for given in node.inputs[6:])
    return None if past or len(node.outputs) > 1 else _before(node.inputs[2], node, channels)


_FIND: Mapping[str, Callable[[Node, Value, int], Offset | None]] = {
    "Add": _summed,
    "BatchNormalization": _batch_normalized,
    "Gemm": _gemm,
    "LayerNormalization": _normalized,
    "Split": _split,
    f"{DOMAIN}::{ATTENTION}": _attention,
}
"""By operator."""
