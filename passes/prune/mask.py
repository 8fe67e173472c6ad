"""The original with removed atoms masked: what a pruned model must equal before it is repaired.

Zeros stand wherever something is summed over an axis that shrinks: a removed channel is one that
no layer reads, whatever its bias and activation make of it.
"""

from __future__ import annotations

import numpy as np

from onnxslim.analyses.axes import AxisMap
from onnxslim.ir import Array, Editor, Model, Node


def mask(editor: Editor, axes: AxisMap, removed: Array) -> int:
    """Multiply every input that is summed over by 0 where its atoms are removed; how many.

    The editor may be that of the model that was analysed or of a snapshot of it.
    """
    count, twins = 0, makers(editor.model)
    for sink in axes.trace.sinks:
        keep = ~removed[axes.classes(sink.ids)]
        node = twins[str(sink.node.outputs[0].name)]
        value, original = node.inputs[sink.index], sink.node.inputs[sink.index]
        if value is None or original is None or keep.all():
            continue
        rank = len(axes.axes(original))
        shape = [-1 if axis == sink.axis else 1 for axis in range(rank)]
        dtype = axes.trace.facts.dtype(original)
        flags = keep.reshape(shape).astype(np.float32 if dtype is None else dtype.numpy())
        flag = editor.initializer(editor.scope_of(node), "mask", flags)
        product = editor.node("Mul", [value, flag], outputs=[f"{value.name}_masked"])
        editor.insert_before(node, [product])
        node.replace_input_with(sink.index, product.outputs[0])
        count += 1
    return count


def makers(model: Model) -> dict[str, Node]:
    """The node of the main graph that makes each value, by the value's name."""
    return {str(value.name): node for node in model.graph for value in node.outputs}
