"""A bound written as Max or Min -> Clip, which a QuantizeLinear behind it can do for nothing.

Max(x, c) -> Clip(x, c), Min(x, c) -> Clip(x, , c)   for one number c
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Editor, Node, Value
from onnxslim.rewrite import Rewrite, Rule

BOUNDS_SINCE = 11
"""The opset from which the limits of Clip are inputs."""


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    inputs = list(node.inputs)
    at = [i for i, value in enumerate(inputs) if facts.array(value) is not None]
    if len(inputs) != 2 or len(at) != 1 or facts.opset(node) < BOUNDS_SINCE:
        return None
    x, number = inputs[1 - at[0]], facts.array(inputs[at[0]])
    if x is None or number is None or number.size != 1 or number.dtype != np.float32:
        return None
    if not np.isfinite(number).all():
        return "its bound is no finite number"
    rank = facts.rank(x)
    if rank is None or rank < number.ndim:
        return "its constant may change the rank"
    return lambda editor: _replace(editor, node, x, float(number.reshape(())))


def _replace(editor: Editor, node: Node, x: Value, number: float) -> Sequence[Node]:
    name = str(node.outputs[0].name)
    limit = editor.initializer(editor.scope_of(node), f"{name}.limit", np.array(number, np.float32))
    limits = [limit] if ir.op(node) == "Max" else [None, limit]
    made = editor.node("Clip", [x, *limits], outputs=[name], like=node)
    editor.replace_node(node, [made], made.outputs)
    return [made]


BOUNDS = Rule(
    "bounds", frozenset({"Max", "Min"}), _match, "Max or Min of a tensor and a number -> Clip"
)
