"""Split into slices of one, each without its axis: an index of a Gather says both.

Exporters write `unbind` so. The Gathers are one node fewer, and often become one Split after all,
along an axis that holds more (`split`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.errors import EditError
from onnxslim.ir import Editor, Node
from onnxslim.passes.simplify.eliminate.common import given, has_references, integers, readers
from onnxslim.rewrite import Rewrite, Rule


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    shape, source = facts.shape(node.outputs[0]), given(node, 0)
    if shape is None or source is None or has_references(node) or len(node.outputs) < 2:
        return None
    axis = int(ir.attribute(node, "axis", 0)) % max(len(shape), 1)
    squeezes: list[Node] = []
    for output in node.outputs:
        own = facts.shape(output)
        if own is None or own[axis] != 1:
            return None
        found = readers(output)
        if len(found) != 1 or output.is_graph_output() or found[0].graph is not node.graph:
            return "a part is not read by one Squeeze alone"
        if not _drops(found[0], axis, len(shape), facts):
            return "a part is not read by one Squeeze alone"
        squeezes.append(found[0])
    return lambda editor: _replace(editor, node, axis, squeezes)


def _drops(node: Node, axis: int, rank: int, facts: Facts) -> bool:
    """Whether a node is a Squeeze of this axis and no other."""
    if ir.op(node) != "Squeeze" or has_references(node):
        return False
    axes = integers(node, facts, "axes", 1)
    return axes is not None and [a % rank for a in axes] == [axis]


def _replace(editor: Editor, node: Node, axis: int, squeezes: Sequence[Node]) -> Sequence[Node]:
    source, scope = node.inputs[0], editor.scope_of(node)
    if source is None:
        raise EditError("the Split has no input")
    gathers: list[Node] = []
    for index, squeeze in enumerate(squeezes):
        hint = str(squeeze.outputs[0].name)
        position = editor.initializer(scope, f"{hint}_index", np.array(index, np.int64))
        gather = editor.node(
            "Gather", [source, position], outputs=[hint], attributes={"axis": axis}, like=squeeze
        )
        editor.replace_node(squeeze, [gather], gather.outputs)
        gathers.append(gather)
    return gathers


RULES: tuple[Rule, ...] = (
    Rule(
        "split-of-ones",
        frozenset({"Split"}),
        _match,
        "Squeeze of each part of a Split into ones -> Gather of each index",
    ),
)
