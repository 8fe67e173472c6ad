"""What feeds a layer and can be divided channel by channel: x = c * z, so x / s = (c / s) * z.

A scale of a normalization, a gate's other factor, the layer before, the values of attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear
from onnxslim.ir import Array, Editor, Node, Value


@dataclass(frozen=True)
class Source:
    """`copies` [d]: the channel of the source that each channel of the tensor is made of;
    `divide(editor, s)` divides its channels [C] by s in place."""

    copies: Array
    divide: Callable[[Editor, Array], None]


def source_of(x: Value, d: int) -> Source | None:
    """The source of a tensor with d channels on its last axis; None where it has none."""
    node = x.producer()
    rule = None if node is None else _RULES.get(ir.op(node))
    return None if node is None or rule is None else rule(node, d)


def _alone(value: Value | None) -> bool:
    return value is not None and len(value.uses()) == 1 and not value.is_graph_output()


def _vector(value: Value | None, d: int) -> bool:
    content = ir.array(value)
    fits = content is not None and content.dtype == np.float32 and content.size == d
    return fits and content is not None and content.shape[-1:] == (d,)


def _constants(node: Node, indices: tuple[int, ...], d: int) -> Source | None:
    """Constants [d] that a node multiplies by or adds; those that are absent need nothing."""
    there = [i for i in indices if i < len(node.inputs) and node.inputs[i] is not None]
    if not there or not all(_vector(node.inputs[i], d) for i in there):
        return None

    def divide(editor: Editor, s: Array) -> None:
        for index in there:
            own = editor.unshare(node, index)
            content = ir.array(own)
            assert content is not None
            editor.replace_initializer(own, (content / s).astype(np.float32))

    return Source(np.arange(d), divide)


def _made_by_layer(value: Value | None, d: int) -> Source | None:
    """The layer whose outputs are the channels, if nothing else reads them."""
    node = value.producer() if value is not None and _alone(value) else None
    layer = None if node is None else _dense(node)
    if node is None or layer is None or layer.out_features != d:
        return None
    return Source(np.arange(d), lambda editor, s: _divide_rows(editor, node, s))


def _dense(node: Node) -> Linear | None:
    layer = linear(node)
    if isinstance(layer, str) or layer.kind == "conv" or layer.bias_vector() is None:
        return None
    return layer if (ir.array(layer.weight) is not None) else None


def _divide_rows(editor: Editor, node: Node, s: Array) -> None:
    scaled_weight(editor, node, lambda matrix: matrix / s[:, None])
    layer = linear(node)
    assert isinstance(layer, Linear)
    bias = layer.bias_vector()
    if layer.bias is not None and bias is not None and layer.bias_index is not None:
        own = editor.unshare(node, layer.bias_index)
        editor.replace_initializer(own, layer.from_bias(bias / s))


def scaled_weight(editor: Editor, node: Node, change: Callable[[Array], Array]) -> None:
    """Change the weight [out, d] of a MatMul or Gemm, for it alone."""
    layer = linear(node)
    assert isinstance(layer, Linear)
    matrix = change(layer.matrix()[0])
    own = editor.unshare(node, layer.weight_index)
    editor.replace_initializer(own, layer.from_matrix(matrix[None]))


def _product(node: Node, d: int) -> Source | None:
    """Mul by a constant [d]; or of two tensors, one of which a layer makes."""
    at = [i for i, value in enumerate(node.inputs) if ir.constant(value) is not None]
    if at:
        return _constants(node, (at[0],), d)
    found = (_made_by_layer(value, d) for value in node.inputs)
    return next((source for source in found if source is not None), None)


def _attention(node: Node, d: int) -> Source | None:
    """The values of GroupQueryAttention: each head is copied for all queries that share it.

    Packed, values are the last columns of the one product.
    """
    heads, shared = int(ir.attribute(node, "num_heads")), int(ir.attribute(node, "kv_num_heads"))
    size, packed = d // heads, node.inputs[2] is None
    width, before = shared * size, (heads + shared) * size if packed else 0
    source = _made_by_layer(node.inputs[0 if packed else 2], before + width)
    if source is None:
        return None
    copies = np.repeat(np.arange(width).reshape(shared, 1, size), heads // shared, axis=1)

    def divide(editor: Editor, s: Array) -> None:
        source.divide(editor, np.concatenate([np.ones(before), s]))

    return Source(copies.ravel(), divide)


_RULES: Mapping[str, Callable[[Node, int], Source | None]] = {
    "Mul": _product,
    "MatMul": lambda node, d: _made_by_layer(node.outputs[0], d),
    "Gemm": lambda node, d: _made_by_layer(node.outputs[0], d),
    "LayerNormalization": lambda node, d: _constants(node, (1, 2), d),
    "RMSNormalization": lambda node, d: _constants(node, (1,), d),
    "com.microsoft::GroupQueryAttention": _attention,
}
"""By operator: from a node and the channels of its output to their source."""
