"""Results that follow from shapes that hold for every input."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Inferred, Node, Value

Types = Mapping[str, Inferred]


def static_result(node: Node, types: Types) -> Array | None:
    """What Shape, Size, or Gather of a Shape always gives; None where a size varies.

    Shape(x) -> constant, Size(x) -> constant, Gather(Shape(x), i) -> constant
    """
    operator, x = ir.op(node), node.inputs[0] if node.inputs else None
    if x is None:
        return None
    if operator == "Shape":
        dims = _shape_result(node, types)
        return None if dims is None else _all_known(dims)
    if operator == "Size":
        sizes = _all_known(_dims(x, types))
        return None if sizes is None else np.asarray(prod(sizes.tolist()), np.int64)
    if operator == "Gather":
        return _gathered(node, types)
    return None


def _dims(value: Value, types: Types) -> tuple[int | str | None, ...] | None:
    found = types.get(str(value.name))
    return None if found is None else found.shape


def _shape_result(node: Node, types: Types) -> tuple[int | str | None, ...] | None:
    assert node.inputs[0] is not None
    dims = _dims(node.inputs[0], types)
    if dims is None or any(attribute.is_ref() for attribute in node.attributes.values()):
        return None
    end = ir.attribute(node, "end")  # both are clamped to [0, rank] like the bounds of a slice
    return dims[slice(int(ir.attribute(node, "start", 0)), None if end is None else int(end))]


def _all_known(dims: tuple[int | str | None, ...] | None) -> Array | None:
    if dims is None or not all(isinstance(dim, int) for dim in dims):
        return None
    return np.asarray(dims, np.int64)


def _gathered(node: Node, types: Types) -> Array | None:
    """Gather on axis 0 of a Shape: only the sizes that it picks must be known."""
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    indices = ir.array(node.inputs[1]) if len(node.inputs) > 1 else None
    if source is None or ir.op(source) != "Shape" or indices is None:
        return None
    dims = _shape_result(source, types)
    axes = [int(i) for i in indices.ravel().tolist()]
    if dims is None or not all(-len(dims) <= axis < len(dims) for axis in axes):
        return None
    picked = _all_known(tuple(dims[axis] for axis in axes))
    return None if picked is None else picked.reshape(indices.shape)
