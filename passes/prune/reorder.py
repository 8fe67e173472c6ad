"""A model that computes the same and sums in another order: what float rounding alone changes."""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.ir import Editor, Model, Node


def reorder(model: Model, seed: int = 0) -> int:
    """Permute the inputs of every dense layer together with its weight; how many layers.

    In place, on the main graph. In exact arithmetic nothing changes.
    """
    editor, count = Editor(model), 0
    random = np.random.default_rng(seed)
    for node in list(model.graph):
        axes = _summed(node)
        if axes is not None:
            count += _permute(editor, node, *axes, random)
    return count


def _summed(node: Node) -> tuple[int, int] | None:
    """The axes of input and weight that a layer sums over, as Gather names them."""
    op = ir.op(node)
    if op == "Conv" and ir.attribute(node, "group", 1) == 1:
        return 1, 1
    if op == "MatMul":
        return -1, -2
    if op in ("Gemm", "com.microsoft::FusedGemm"):
        return 1 - ir.attribute(node, "transA", 0), ir.attribute(node, "transB", 0)
    return None


def _permute(editor: Editor, node: Node, axis: int, row: int, random: np.random.Generator) -> bool:
    value = node.inputs[0]
    weight = None if node.inputs[1] is None else ir.array(node.inputs[1])
    if value is None or weight is None or weight.ndim < 2 or weight.shape[row] < 2:
        return False
    order = random.permutation(weight.shape[row])
    scope = editor.scope_of(node)
    places = editor.initializer(scope, "order", order)
    moved = editor.initializer(scope, "reordered", np.take(weight, order, axis=row))
    gather = editor.node(
        "Gather", [value, places], outputs=["reordered"], attributes={"axis": axis}, like=node
    )
    editor.insert_before(node, [gather])
    node.replace_input_with(0, gather.outputs[0])
    node.replace_input_with(1, moved)
    return True
