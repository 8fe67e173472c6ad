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
    """Put zeros into every input that is summed over where its atoms are removed; how many.

    The editor may be that of the model that was analysed or of a snapshot of it.
    """
    count, twins = 0, makers(editor.model)
    for sink in axes.trace.sinks:
        keep = ~removed[axes.classes(sink.ids)]
        node = twins[str(sink.node.outputs[0].name)]
        value, original = node.inputs[sink.index], sink.node.inputs[sink.index]
        if value is None or original is None or keep.all():
            continue
        blank = _blank(editor, axes, keep, value, original, sink.axis)
        editor.insert_before(node, [blank])
        node.replace_input_with(sink.index, blank.outputs[0])
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
    first, original = fact.reads[0][1], fact.node.inputs[0]
    assert original is not None, "a statistic is of something"
    made = [node.outputs[i] for i in fact.makes if i < len(node.outputs)]
    for value in [value for value in made if value.uses()]:
        where = editor.initializer(scope, "where", np.maximum(np.cumsum(keep) - 1, 0))
        wide = _gather(editor, value, where, first)
        blank = _blank(editor, axes, keep, wide.outputs[0], original, first)
        editor.insert_on_edge(value, [wide, blank], blank.outputs[0])
    for index, axis in fact.reads:
        kept = editor.initializer(scope, "stays", stays)
        gather = _gather(editor, node.inputs[index], kept, axis)
        editor.insert_before(node, [gather])
        node.replace_input_with(index, gather.outputs[0])


def _gather(editor: Editor, value: Value | None, places: Value, axis: int) -> Node:
    hint = "nothing" if value is None else f"{value.name}_picked"
    return editor.node("Gather", [value, places], outputs=[hint], attributes={"axis": axis})


def _blank(
    editor: Editor, axes: AxisMap, keep: Array, value: Value, original: Value, axis: int
) -> Node:
    """A value with zeros where positions go, even in place of what is not finite.

    `original` is of the same rank and type and was analysed.
    """
    shape = [-1 if at == axis else 1 for at in range(len(axes.axes(original)))]
    known = axes.trace.facts.dtype(original)
    zero = np.zeros((), np.float32 if known is None else known.numpy())
    graph = editor.model.graph
    flags = editor.initializer(graph, "mask", keep.reshape(shape))
    inputs = [flags, value, editor.initializer(graph, "zero", zero)]
    return editor.node("Where", inputs, outputs=[f"{value.name}_masked"])


def makers(model: Model) -> dict[str, Node]:
    """The node of the main graph that makes each value, by the value's name."""
    return {str(value.name): node for node in model.graph for value in node.outputs}
