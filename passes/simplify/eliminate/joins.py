"""Transposes of all inputs become one of the output; pooling of a Transpose becomes a reduction.

Add(Transpose(x), Transpose(y)) -> Transpose(Add(x, y)), likewise Concat
GlobalAveragePool(Transpose(x)) -> Flatten  ->  ReduceMean(x)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Editor, Node, Value
from onnxslim.passes.simplify.eliminate.common import (
    given,
    has_references,
    is_private,
    readers,
)
from onnxslim.passes.simplify.eliminate.rowwise import BINARY
from onnxslim.passes.simplify.eliminate.views import VIEWS
from onnxslim.rewrite import Rewrite, Rule

JOINED = frozenset({*BINARY, "Concat", "Mean", "Sum", "Where"})

POOLS = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}
"""Pooling over all positions, and the reduction that does the same along any axes."""

_AXES_AS_INPUT = 18


def _turned(value: Value | None, reader: Node) -> tuple[Value, tuple[int, ...]] | None:
    """What a value is the Transpose of, and how; None if others read it."""
    node = None if value is None else value.producer()
    if node is None or value is None or ir.op(node) != "Transpose" or has_references(node):
        return None
    x, perm = node.inputs[0], ir.attribute(node, "perm")
    if x is None or perm is None or not is_private(value, reader):
        return None
    return x, tuple(int(axis) for axis in perm)


def _match_join(node: Node, facts: Facts) -> Rewrite | str | None:
    if has_references(node) or (ir.op(node) != "Concat" and "axis" in node.attributes):
        return None
    inputs: list[Value | None] = []
    perms: list[tuple[int, ...]] = []
    for value in node.inputs:
        found = _turned(value, node)
        if found is not None:
            inputs.append(found[0])
            perms.append(found[1])
        elif ir.op(node) != "Concat" and _is_number(value):
            inputs.append(value)
        else:
            return "not all of its inputs are Transposes that it alone reads" if perms else None
    if len(perms) < 2:
        return None
    if len(set(perms)) > 1:
        return "its inputs are transposed in different ways"
    return lambda editor: _join(editor, node, inputs, perms[0])


def _is_number(value: Value | None) -> bool:
    tensor = ir.constant(value)
    return tensor is not None and tensor.size == 1 and len(tensor.shape) <= 1


def _join(
    editor: Editor, node: Node, inputs: Sequence[Value | None], perm: tuple[int, ...]
) -> Sequence[Node]:
    hint = str(node.outputs[0].name)
    attributes = {a.name: a.value for a in node.attributes.values()}
    if ir.op(node) == "Concat":
        attributes["axis"] = perm[int(ir.attribute(node, "axis", 1))]
    made = editor.node(
        node.op_type, inputs, outputs=[f"{hint}_before"], attributes=attributes, like=node
    )
    last = editor.node(
        "Transpose", [made.outputs[0]], outputs=[hint], attributes={"perm": list(perm)}, like=node
    )
    editor.replace_node(node, [made, last], [last.outputs[0]])
    return [made, last]


def _match_pool(node: Node, facts: Facts) -> Rewrite | str | None:
    found = _turned(given(node, 0), node)
    if found is None:
        return None
    x, perm = found
    rank = len(perm)
    if perm[:2] != (0, rank - 1):
        return "the Transpose does more than to bring the channels to the front"
    output = node.outputs[0]
    users, shape = readers(output), facts.shape(output)
    if len(users) != 1 or shape is None or not is_private(output, users[0]):
        return "its output is read elsewhere too, or its shape is not known"
    view = users[0]
    if ir.op(view) not in VIEWS or facts.shape(view.outputs[0]) != shape[:2]:
        return "no Flatten behind it"
    return lambda editor: _reduce(editor, node, view, x, facts.opset(node) >= _AXES_AS_INPUT)


def _reduce(
    editor: Editor, node: Node, view: Node, x: Value, axes_as_input: bool
) -> Sequence[Node]:
    turned = given(node, 0)
    before = None if turned is None else turned.producer()
    rank = 0 if before is None else len(ir.attribute(before, "perm"))
    axes, hint = list(range(1, rank - 1)), str(view.outputs[0].name)
    inputs = [x]
    attributes: dict[str, object] = {"keepdims": 0}
    if axes_as_input:
        content = np.asarray(axes, np.int64)
        inputs.append(editor.initializer(editor.scope_of(view), f"{hint}_axes", content))
    else:
        attributes["axes"] = axes
    made = editor.node(POOLS[ir.op(node)], inputs, outputs=[hint], attributes=attributes, like=node)
    editor.replace_node(view, [made], [made.outputs[0]])
    return [made]


RULES: tuple[Rule, ...] = (
    Rule(
        "join-transposes",
        JOINED,
        _match_join,
        "Add(Transpose(x), Transpose(y)) -> Transpose(Add(x, y))",
    ),
    Rule(
        "pool-of-transpose",
        frozenset(POOLS),
        _match_pool,
        "GlobalAveragePool(Transpose(x)), Flatten -> ReduceMean(x)",
        exact=False,
    ),
)
