"""Divisors of a tensor that go into the normalization that makes it, where nothing else reads it.

(LN(x) * g + b) / s = LN(x) * (g / s) + b / s: no Mul is left in front of the QuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Editor, Node, TensorProtocol, Use, Value

Given = tuple[tuple[int, TensorProtocol], ...]
"""Inputs of a normalization, and what they held."""

SCALES: Mapping[str, tuple[int, ...]] = {"LayerNormalization": (1, 2), "RMSNormalization": (1,)}
"""By operator, the inputs that its result is multiplied by or that are added to it."""


def divided(editor: Editor, value: Value, readers: Sequence[Use], s: Array) -> Given:
    """Divide a tensor by s [C] in the normalization that makes it, in place; returns what its
    constants were. Nothing is done, and () returned, where others read it, or it is made otherwise.
    """
    node = value.producer()
    indices = () if node is None else SCALES.get(ir.op(node), ())
    others = {(use.node, use.idx) for use in value.uses()} - set(readers)
    if node is None or not indices or others or value.is_graph_output():
        return ()
    there = [i for i in indices if i < len(node.inputs) and node.inputs[i] is not None]
    given = tuple((i, tensor) for i in there if (tensor := _vector(node, i, len(s))) is not None)
    if len(given) < len(there):
        return ()
    for index, tensor in given:
        own = editor.unshare(node, index)
        editor.replace_initializer(own, (tensor.numpy() / s).astype(np.float32))
    return given


def restored(editor: Editor, node: Node, given: Given) -> None:
    """Give a normalization its constants back."""
    for index, tensor in given:
        own = editor.initializer(editor.scope_of(node), str(tensor.name), tensor)
        editor.rewire([(node, index)], own)


def _vector(node: Node, index: int, d: int) -> TensorProtocol | None:
    tensor = ir.constant(node.inputs[index])
    fits = tensor is not None and tensor.dtype == ir.DataType.FLOAT
    return tensor if fits and tensor is not None and tuple(tensor.shape) == (d,) else None
