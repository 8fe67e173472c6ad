"""The original with removed atoms masked: what a pruned model must equal before it is repaired.

Zeros stand wherever something is summed over an axis that shrinks: a removed channel is one that
no layer reads, whatever its bias and activation make of it.
"""

from __future__ import annotations

import numpy as np

from onnxslim.analyses.axes import AxisMap
from onnxslim.ir import Array, Editor


def mask(editor: Editor, axes: AxisMap, removed: Array) -> int:
    """Multiply every input that is summed over by 0 where its atoms are removed; how many."""
    count = 0
    for sink in axes.trace.sinks:
        keep = ~removed[axes.classes(sink.ids)]
        value = sink.node.inputs[sink.index]
        if value is None or keep.all():
            continue
        rank = len(axes.trace.axes.get(value, ())) or len(axes.trace.of(value) or ())
        shape = [-1 if axis == sink.axis else 1 for axis in range(rank)]
        dtype = axes.trace.facts.dtype(value)
        flags = keep.reshape(shape).astype(np.float32 if dtype is None else dtype.numpy())
        flag = editor.initializer(editor.scope_of(sink.node), "mask", flags)
        product = editor.node("Mul", [value, flag], outputs=[f"{value.name}_masked"])
        editor.insert_before(sink.node, [product])
        sink.node.replace_input_with(sink.index, product.outputs[0])
        count += 1
    return count
