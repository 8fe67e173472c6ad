"""The axes of reductions and of constants, as counted from the front."""

from __future__ import annotations

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Node, Value


def reduced_axes(node: Node, rank: int | None) -> tuple[int, ...] | None:
    """The sorted axes of a reduction that keeps them, else None: not known, all, or dropped."""
    if rank is None or not ir.attribute(node, "keepdims", 1):
        return None
    return axes_of(node, rank)


def axes_of(node: Node, rank: int) -> tuple[int, ...] | None:
    """The sorted axes of a reduction or Squeeze, from its attribute or its input."""
    given = ir.attribute(node, "axes")
    if given is None:
        array = ir.array(node.inputs[1]) if len(node.inputs) > 1 else None
        given = None if array is None else [int(axis) for axis in array.ravel()]
    if not given:
        return None
    axes = sorted({int(axis) % rank for axis in given if -rank <= int(axis) < rank})
    return tuple(axes) if len(axes) == len(given) else None


def may_change_shape(constant: tuple[int, ...], value: Value, facts: Facts) -> str | None:
    """Why broadcasting with a constant of this shape may give a value another shape."""
    if not constant:
        return None
    shape = facts.shape(value)
    if shape is None or len(constant) > len(shape):
        return "its constant may change the rank"
    aligned = shape[len(shape) - len(constant) :]
    if any(c not in (1, d) for c, d in zip(constant, aligned, strict=True)):
        return "its constant may change the shape"
    return None
