"""Loops that run never or once.

Loop(trip count 0, or condition false) -> its initial values, where no scanned output is read
Loop(trip count 1, condition true) -> its body; scanned outputs get their axis by Unsqueeze
"""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.errors import EditError
from onnxslim.ir import Array, Editor, Model, Node, Value
from onnxslim.passes.fold.bypass import inline

_AXES_AS_INPUT = 13  # of Unsqueeze


def unroll_loops(editor: Editor, model: Model, facts: Facts) -> int:
    """Take Loops out that run never or once; how many."""
    loops = [node for node in ir.nodes(model) if ir.op(node) == "Loop"]
    count = 0
    for node in loops:
        trips = None if node.graph is None else _trips(node, facts)
        if trips == 0:
            count += _skip(editor, node)
        elif trips == 1:
            count += _inline_once(editor, node, facts)
    return count


def _trips(node: Node, facts: Facts) -> int | None:
    """0 or 1 where the Loop always runs so often."""
    limit, condition = (facts.array(value) for value in node.inputs[:2])
    if condition is not None and not condition.any():
        return 0
    if limit is None:
        return None
    if _number(limit) <= 0:
        return 0
    goes = condition is not None or node.inputs[1] is None
    return 1 if goes and _number(limit) == 1 else None


def _number(limit: Array) -> int:
    return int(limit.ravel()[0]) if limit.size == 1 else 2


def _skip(editor: Editor, node: Node) -> int:
    """Initial values stand for the carried outputs."""
    initial = node.inputs[2:]
    scanned = node.outputs[len(initial) :]
    if None in initial or any(value.uses() or value.is_graph_output() for value in scanned):
        return 0
    nodes: list[Node] = []
    stand_ins: list[Value | None] = []
    for value, output in zip(initial, node.outputs, strict=False):
        assert value is not None
        nodes.append(editor.node("Identity", [value], outputs=[str(output.name)], like=node))
        stand_ins.append(nodes[-1].outputs[0])
    return _replaced(editor, node, nodes, [*stand_ins, *([None] * len(scanned))])


def _replaced(editor: Editor, node: Node, nodes: list[Node], outputs: list[Value | None]) -> int:
    try:
        editor.replace_node(node, nodes, outputs)
    except EditError:
        return 0
    return 1


def _inline_once(editor: Editor, node: Node, facts: Facts) -> int:
    body = node.attributes["body"].as_graph()
    initial = node.inputs[2:]
    if None in initial or len(body.inputs) != len(initial) + 2:
        return 0
    scope = editor.scope_of(node)
    first = editor.initializer(scope, "iteration", np.asarray(0, np.int64))
    going = editor.initializer(scope, "condition", np.asarray(True))
    given = dict(zip(body.inputs, [first, going, *initial], strict=True))
    for formal, actual in given.items():
        assert actual is not None
        editor.rewire([(use.node, use.idx) for use in formal.uses()], actual)
    results = [given.get(value, value) for value in body.outputs[1:]]
    carried = len(initial)
    extra = [
        _with_axis(editor, node, value, facts.opset(node)) for value in results[carried:] if value
    ]
    results[carried:] = [one.outputs[0] for one in extra]
    inline(editor, node, body, results, extra)
    return 1


def _with_axis(editor: Editor, like: Node, value: Value, opset: int) -> Node:
    """A value that a Loop collects, of its only run."""
    name = f"{value.name}.scanned"
    if opset < _AXES_AS_INPUT:
        return editor.node("Unsqueeze", [value], outputs=[name], attributes={"axes": [0]})
    axes = editor.initializer(editor.scope_of(like), "axes", np.asarray([0], np.int64))
    return editor.node("Unsqueeze", [value, axes], outputs=[name])
