"""What is known of one value, and of a node with all that goes into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts.dims import Dim, Expr
from onnxslim.ir import DataType, Node, TensorProtocol

MOST_ELEMENTS = 64
"""Contents of larger tensors are not followed: shapes, axes and pads are small."""

LIMITS = {
    DataType.BOOL: (0, 1),
    DataType.INT32: (-(2**31), 2**31 - 1),
    DataType.INT64: (-(2**63), 2**63 - 1),
}
"""The types whose contents are followed, and the numbers that they hold."""

Content: TypeAlias = "tuple[Dim, ...]"
Shape: TypeAlias = "tuple[Dim, ...]"


class Contradiction(Exception):
    """A node whose inputs do not go together: no run of it is valid, so nothing follows."""


class Fact:
    """Type, shape and contents of a value, each None where unknown. Never changed, but filled in.

    `content` has the elements in row-major order, for integers and booleans of static shape.
    """

    __slots__ = ("_content", "dtype", "shape", "tensor")

    def __init__(
        self,
        dtype: DataType | None = None,
        shape: Shape | None = None,
        content: Content | None = None,
        tensor: TensorProtocol | None = None,
    ) -> None:
        self.dtype = dtype
        self.shape = shape
        self.tensor = tensor
        self._content = content

    @property
    def content(self) -> Content | None:
        """The elements; those of a constant are read when first asked for."""
        if self._content is None and self.tensor is not None and self.dtype in LIMITS:
            count = self.count
            if count is not None and count <= MOST_ELEMENTS:
                self._content = tuple(int(x) for x in self.tensor.numpy().ravel().tolist())
        return self._content

    def fill(self, content: Content) -> None:
        """Name elements that nothing was known of."""
        self._content = content

    @property
    def count(self) -> int | None:
        """The number of elements, where it is known."""
        sizes = numbers(self.shape)
        return None if sizes is None else prod(sizes)

    def says(self) -> tuple[object, ...]:
        """All of it, to compare; a constant stands for its contents."""
        return self.dtype, self.shape, id(self.tensor) if self.tensor else self._content


UNKNOWN = Fact()


def numbers(dims: Sequence[Dim] | None) -> tuple[int, ...] | None:
    """The dimensions where all of them are numbers, else None."""
    if dims is None:
        return None
    found = tuple(d for d in dims if isinstance(d, int))
    return found if len(found) == len(dims) else None


def constant_fact(tensor: TensorProtocol) -> Fact:
    """What is known of a constant: everything."""
    return Fact(tensor.dtype, tuple(int(size) for size in tensor.shape.numpy()), None, tensor)


class Site:
    """A node with what is known of its inputs. `fresh` makes an unknown size or integer."""

    __slots__ = ("fresh", "inputs", "node", "op", "version")

    def __init__(
        self, node: Node, inputs: Sequence[Fact | None], version: int, fresh: Callable[[bool], Expr]
    ) -> None:
        self.node = node
        self.op = node.op_type
        self.inputs = inputs  # None for an input that is absent
        self.version = version
        self.fresh = fresh

    def has(self, index: int) -> bool:
        """Whether the optional input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def fact(self, index: int) -> Fact:
        """What is known of an input; nothing of an absent one."""
        found = self.inputs[index] if index < len(self.inputs) else None
        return UNKNOWN if found is None else found

    def dtype(self, index: int = 0) -> DataType | None:
        """The element type of an input."""
        return self.fact(index).dtype

    def shape(self, index: int = 0) -> Shape | None:
        """The shape of an input."""
        return self.fact(index).shape

    def content(self, index: int) -> Content | None:
        """The elements of an input where something is known of them."""
        return self.fact(index).content

    def ints(self, index: int) -> tuple[int, ...] | None:
        """The elements of an input where all of them are known."""
        return numbers(self.content(index))

    def elements(self, index: int) -> Content | None:
        """The elements of a small integer input, unknowns under names of their own."""
        fact = self.fact(index)
        if fact.content is None and fact.dtype in LIMITS:
            count = fact.count
            if count is not None and count <= MOST_ELEMENTS // 2:
                fact.fill(tuple(self.fresh(False) for _ in range(count)))
        return fact.content

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute."""
        return ir.attribute(self.node, name, default)

    def sizes(self, count: int) -> Shape:
        """A shape of unknown sizes."""
        return tuple(self.fresh(True) for _ in range(count))


Rule: TypeAlias = "Callable[[Site], Fact | Sequence[Fact] | None]"
"""From a node to what is known of its outputs; None where the table does not know it.
Raises Contradiction."""

Rules: TypeAlias = "dict[str, Rule]"


def axis_of(axis: int, rank: int) -> int:
    """The axis counted from the front. Raises Contradiction where there is no such axis."""
    if not -rank <= axis < rank:
        raise Contradiction
    return axis % rank


def axes_of(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, each once. Raises Contradiction where that is not so."""
    found = tuple(axis_of(int(axis), rank) for axis in axes)
    if len(set(found)) < len(found):
        raise Contradiction
    return found


def grid(fact: Fact) -> np.ndarray[Any, np.dtype[np.object_]] | None:
    """The contents in their shape."""
    sizes, content = numbers(fact.shape), fact.content
    if sizes is None or content is None:
        return None
    flat = np.empty(len(content), object)
    flat[:] = content
    return flat.reshape(sizes)


def from_grid(dtype: DataType | None, cells: Any) -> Fact:
    """The fact of contents in their shape; too many are dropped."""
    array = np.asarray(cells, object)
    content = tuple(array.ravel().tolist()) if array.size <= MOST_ELEMENTS else None
    return Fact(dtype, array.shape, content)
