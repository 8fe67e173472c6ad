"""What kernels are given: constant inputs, attributes that became inputs, types."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnxslim import ir
from onnxslim.ir import Array, Node

Inputs = Sequence["Array | None"]
Kernel = Callable[[Node, Inputs, int], "Array | None"]
"""Node, its constant inputs, its opset -> its one output; None where the runtime is to decide."""

NATIVE = frozenset("bifu")
"""Kinds of numpy's own types."""

EXACT = frozenset({"float32", "float64"})
"""Floats whose arithmetic rounds in numpy as it does in C."""


def at(inputs: Inputs, index: int) -> Array | None:
    """An input; None where it is absent."""
    return inputs[index] if index < len(inputs) else None


def given(inputs: Inputs, index: int) -> Array:
    """An input that must be there; raises ValueError."""
    array = at(inputs, index)
    if array is None:
        raise ValueError(f"input {index} is missing")
    return array


def ints(node: Node, inputs: Inputs, index: int, name: str) -> list[int] | None:
    """A list of whole numbers that newer opsets take as an input, older ones as an attribute."""
    array = at(inputs, index)
    given = ir.attribute(node, name) if array is None else array.ravel().tolist()
    return None if given is None else [int(x) for x in given]


def same_types(inputs: Inputs) -> bool:
    """Whether all inputs have one type."""
    return len({array.dtype for array in inputs if array is not None}) == 1


def is_exact(array: Array) -> bool:
    """Whether arithmetic gives the same bits as in C."""
    return array.dtype.name in EXACT or array.dtype.kind in "iu"
