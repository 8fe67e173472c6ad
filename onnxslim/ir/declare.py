"""Types and shapes of inner values, written into the model for those who read them there."""

from __future__ import annotations

from onnxslim.ir.infer import infer_types
from onnxslim.ir.types import Model, Shape, TensorType
from onnxslim.ir.walk import scope_tree


def declare_types(model: Model) -> int:
    """Give computed values of the main graph and its subgraphs the types that inference finds.

    What was declared before is replaced, names of dimensions that inference makes up are left
    out, and graph outputs stay as they are. Returns how many values were told.
    """
    known = infer_types(model)
    told = 0
    for scope in scope_tree(model.graph):
        for value in (value for node in scope for value in node.outputs):
            found = known.get(str(value.name))
            if found is None or found.dtype is None or value.is_graph_output():
                continue
            value.type = TensorType(found.dtype)
            value.shape = None if found.shape is None else Shape(tuple(map(_said, found.shape)))
            told += 1
    return told


def _said(dim: int | str | None) -> int | str | None:
    return None if isinstance(dim, str) and dim.startswith("unk__") else dim
