"""The axes of reductions and of constants, as counted from the front."""

from __future__ import annotations

from onnxslim import ir
from onnxslim.ir import Node


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
