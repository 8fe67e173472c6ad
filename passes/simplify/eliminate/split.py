"""All slices of one axis are taken by one Split, which needs no axis of its own for it.

x [N, 197, 2304] -> Reshape [N, 197, 3, 12, 64] -> Transpose [3, N, 12, 197, 64] -> Gather 0, 1, 2
    -> Reshape [N, 197, 36, 64] -> Transpose [N, 36, 197, 64] -> Split in three along axis 1
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim.analyses.facts import Facts
from onnxslim.errors import EditError
from onnxslim.ir import Editor, Node, Value
from onnxslim.passes.simplify.eliminate.common import given, readers
from onnxslim.passes.simplify.eliminate.hoist import index_axis, trunks
from onnxslim.passes.simplify.eliminate.layout import Layout
from onnxslim.passes.simplify.eliminate.steps import Step, build, steps_of
from onnxslim.passes.simplify.eliminate.views import Chain
from onnxslim.rewrite import Rewrite, Rule

_SPLIT_WITH_INPUT = 13  # the opset since which the sizes are an input


@dataclass(frozen=True)
class _Plan:
    trunk: Chain
    steps: Sequence[Step]
    axis: int  # of the Split
    length: int  # of each part
    gain: int  # nodes


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    source, axis = given(node, 0), index_axis(node, facts)
    if source is None or axis is None or source.is_graph_output():
        return None
    gathers = readers(source)
    if len(gathers) < 2 or gathers[0] is not node or facts.opset(node) < _SPLIT_WITH_INPUT:
        return None
    producer = source.producer()
    if producer is None or any(g.graph is not producer.graph for g in gathers):
        return None
    if any(index_axis(g, facts) != axis or g.outputs[0].is_graph_output() for g in gathers):
        return None
    shape = facts.shape(source)
    size = None if shape is None else shape[axis]
    indices = [_index(g, facts) for g in gathers]
    if not isinstance(size, int) or sorted(i % size for i in indices) != list(range(size)):
        return "not every index is taken exactly once"
    plans = [plan for trunk in trunks(source, facts) for plan in _plans(trunk, axis, size)]
    best = max(plans, key=lambda plan: plan.gain, default=None)
    if best is None or best.gain < 1:
        return "no axis of the result can hold the parts one after the other"
    by_index = {index % size: g for index, g in zip(indices, gathers, strict=True)}
    ordered = [by_index[index] for index in range(size)]
    return lambda editor: _replace(editor, best, source, ordered)


def _index(gather: Node, facts: Facts) -> int:
    array = facts.array(given(gather, 1))
    return 0 if array is None else int(array)


def _plans(trunk: Chain, axis: int, size: int) -> Iterator[_Plan]:
    """With the parts behind each other along any of the other axes."""
    layout = trunk.layout
    own = layout.result[axis]
    rest = [*layout.result[:axis], *layout.result[axis + 1 :]]
    lengths = [*layout.after[:axis], *layout.after[axis + 1 :]]
    for index, (group, length) in enumerate(zip(rest, lengths, strict=True)):
        if not isinstance(length, int):
            continue
        result = (*rest[:index], (*own, *group), *rest[index + 1 :])
        steps = steps_of(Layout(layout.atoms, layout.source, result), trunk.nonzero)
        if steps is not None:
            gain = len(trunk.nodes) + size - len(steps) - 1
            yield _Plan(trunk, steps, index, length, gain)


def _replace(editor: Editor, plan: _Plan, source: Value, gathers: Sequence[Node]) -> Sequence[Node]:
    producer = source.producer()
    if producer is None:
        raise EditError("nothing computes what the Gathers read")
    trunk = build(editor, plan.trunk.x, plan.steps, producer, f"{source.name}_arranged")
    x = trunk[-1].outputs[0] if trunk else plan.trunk.x
    lengths = np.full(len(gathers), plan.length, np.int64)
    split = editor.node(
        "Split",
        [x, editor.initializer(editor.scope_of(producer), f"{source.name}_split", lengths)],
        outputs=[str(gather.outputs[0].name) for gather in gathers],
        attributes={"axis": plan.axis},
        like=gathers[0],
    )
    editor.insert_after(producer, [*trunk, split])
    touched: list[Node] = [*trunk, split]
    for gather, part in zip(gathers, split.outputs, strict=True):
        old = gather.outputs[0]
        touched.extend(readers(old))
        editor.replace_node(gather, (), [part])
        editor.take_name(part, old)
    return list(dict.fromkeys(touched))


RULES: tuple[Rule, ...] = (
    Rule(
        "gathers-to-split",
        frozenset({"Gather"}),
        _match,
        "Gather of each index of an axis -> one Split of another axis",
    ),
)
