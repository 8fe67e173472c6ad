"""The original with removed atoms masked: what a pruned model must equal before it is repaired.

Zeros stand wherever something is summed over an axis that shrinks: a removed channel is one that
no layer reads, whatever its bias and activation make of it. A statistic over an axis that shrinks,
which only the option `width` lets happen, is taken over what stays.
"""

from __future__ import annotations

import numpy as np

from onnxslim.analyses.axes import AxisMap
from onnxslim.analyses.axes.site import Restricted
from onnxslim.ir import Array, Editor, Model, Node, Value


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
        flags = _flags(axes, keep, original, sink.axis)
        flag = editor.initializer(editor.scope_of(node), "mask", flags)
        product = editor.node("Mul", [value, flag], outputs=[f"{value.name}_masked"])
        editor.insert_before(node, [product])
        node.replace_input_with(sink.index, product.outputs[0])
        count += 1
    for fact in axes.trace.restricted:
        keep = ~removed[axes.classes(fact.ids)]
        if not keep.all():
            _restrict(editor, axes, twins[str(fact.node.outputs[0].name)], fact, keep)
            count += 1
    return count


def _restrict(editor: Editor, axes: AxisMap, node: Node, fact: Restricted, keep: Array) -> None:
    """Let a node see what stays of an axis only; where it gives the axis out, zeros fill it up."""
    scope, stays = editor.scope_of(node), np.flatnonzero(keep)
    first = fact.reads[0][1]
    flags = _flags(axes, keep, fact.node.inputs[0], first)
    for index, axis in fact.reads:
        kept = editor.initializer(scope, "stays", stays)
        gather = _gather(editor, node.inputs[index], kept, axis)
        editor.insert_before(node, [gather])
        node.replace_input_with(index, gather.outputs[0])
    for value in [node.outputs[i] for i in fact.makes if i < len(node.outputs)]:
        if value.uses():
            where = editor.initializer(scope, "where", np.maximum(np.cumsum(keep) - 1, 0))
            wide = _gather(editor, value, where, first)
            flag = editor.initializer(scope, "mask", flags)
            hint = f"{value.name}_masked"
            product = editor.node("Mul", [wide.outputs[0], flag], outputs=[hint])
            editor.insert_on_edge(value, [wide, product], product.outputs[0])


def _gather(editor: Editor, value: Value | None, places: Value, axis: int) -> Node:
    hint = "nothing" if value is None else f"{value.name}_picked"
    return editor.node("Gather", [value, places], outputs=[hint], attributes={"axis": axis})


def _flags(axes: AxisMap, keep: Array, value: Value | None, axis: int) -> Array:
    """Ones where positions stay, to be multiplied with the value."""
    shape = [-1 if at == axis else 1 for at in range(len(axes.axes(value)))]
    dtype = axes.trace.facts.dtype(value)
    return keep.reshape(shape).astype(np.float32 if dtype is None else dtype.numpy())


def makers(model: Model) -> dict[str, Node]:
    """The node of the main graph that makes each value, by the value's name."""
    return {str(value.name): node for node in model.graph for value in node.outputs}
