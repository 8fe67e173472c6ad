"""Slices that cut a value into all of its parts along one axis -> Split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Editor, Node, Value
from onnxslim.rewrite import Rewrite, Rule

_Cut = tuple[int, int, int]
"""Axis, start and end of a Slice, as counted from the front."""


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    x = node.inputs[0]
    shape = facts.shape(x)
    mine = None if shape is None else _cut(node, shape)
    if x is None or mine is None or shape is None:
        return None
    parts: dict[_Cut, Node] = {}
    for use in x.uses():
        cut = _cut(use.node, shape) if ir.op(use.node) == "Slice" and use.idx == 0 else None
        if cut is None or cut[0] != mine[0] or use.node.graph is not node.graph:
            continue
        if cut in parts:
            return None  # equal nodes become one first
        parts[cut] = use.node
    cuts = sorted(parts)
    if len(cuts) < 2 or not _is_whole(cuts, shape[mine[0]]):
        return None
    if x.producer() is None or x.graph is not node.graph:
        return "it cuts an input of the graph"
    slices = [parts[cut] for cut in cuts]
    if any(part.outputs[0].is_graph_output() for part in slices):
        return "a part is a graph output"
    sizes = [end - start for _, start, end in cuts]
    old = facts.opset(node) < 13
    return lambda editor: _replace(editor, x, slices, mine[0], sizes, old=old)


def _cut(node: Node, shape: Sequence[object]) -> _Cut | None:
    """What a Slice by one step cuts out of one axis of known size (Slice 10)."""
    if len(node.inputs) < 4 or any(value is None for value in node.inputs[:4]):
        return None
    given = [ir.array(value) for value in node.inputs[1:5] if value is not None]
    lists = [[int(i) for i in a.ravel()] for a in given if a is not None]
    if len(lists) != len(node.inputs) - 1 or any(len(numbers) != 1 for numbers in lists):
        return None
    if len(lists) > 3 and lists[3] != [1]:
        return None
    axis = lists[2][0] % len(shape)
    size = shape[axis]
    if not isinstance(size, int):
        return None
    start, end, _ = slice(lists[0][0], lists[1][0]).indices(size)
    return (axis, start, end)


def _is_whole(cuts: Sequence[_Cut], size: object) -> bool:
    """Whether the sorted cuts lie end to end and cover the axis, none of them empty."""
    ends = [0, *(end for _, _, end in cuts)]
    starts = [*(start for _, start, _ in cuts), size]
    return ends == starts and all(start < end for _, start, end in cuts)


def _replace(
    editor: Editor, x: Value, slices: Sequence[Node], axis: int, sizes: Sequence[int], *, old: bool
) -> Sequence[Node]:
    producer = x.producer()
    assert producer is not None
    names = [str(part.outputs[0].name) for part in slices]
    attributes: dict[str, object] = {"axis": axis}
    inputs = [x]
    if old:
        attributes["split"] = list(sizes)
    else:
        numbers = np.array(sizes, np.int64)
        inputs.append(editor.initializer(editor.scope_of(slices[0]), f"{x.name}.sizes", numbers))
    split = editor.node("Split", inputs, outputs=names, attributes=attributes, like=slices[0])
    editor.insert_after(producer, [split])
    for part, value in zip(slices, split.outputs, strict=True):
        output = part.outputs[0]
        value.type, value.shape = output.type, output.shape
        editor.bypass(part, value)
        editor.take_name(value, output)
    return [split]


SPLIT = Rule(
    "slices-to-split", frozenset({"Slice"}), _match, "Slices that are all of an axis -> Split"
)
RULES: tuple[Rule, ...] = (SPLIT,)
