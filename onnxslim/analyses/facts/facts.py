"""Facts about the values of a model, kept up to date while it is rewritten."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts.dims import Dim, Expr
from onnxslim.ir import Array, DataType, Inferred, Model, Node, Value


class Facts:
    """What holds for every run of a model; nothing is believed but types, inputs and weights."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._types: Mapping[str, Inferred] = ir.infer_types(model)

    def dtype(self, value: Value | None) -> DataType | None:
        """The element type of a tensor; None where it is unknown or no tensor."""
        if value is None:
            return None
        found = self._types.get(str(value.name))
        return value.dtype if found is None else found.dtype

    def shape(self, value: Value | None) -> tuple[Dim, ...] | None:
        """The shape of a tensor; None where even the rank is unknown."""
        if value is None:
            return None
        if (tensor := ir.constant(value)) is not None:
            return tuple(int(size) for size in tensor.shape.numpy())
        found = self._types.get(str(value.name))
        if found is None or found.shape is None:
            return None
        name = value.name
        return tuple(
            d if isinstance(d, int) else Expr(d or f"{name}.{i}") for i, d in enumerate(found.shape)
        )

    def rank(self, value: Value | None) -> int | None:
        """The number of axes of a tensor, if known."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def sizes(self, value: Value | None) -> tuple[int, ...] | None:
        """The shape where all of it is numbers, else None."""
        shape = self.shape(value)
        if shape is None:
            return None
        numbers = tuple(size for size in shape if isinstance(size, int))
        return numbers if len(numbers) == len(shape) else None

    def content(self, value: Value | None) -> tuple[Dim, ...] | None:
        """The elements of a small integer tensor (rank 0 or 1) as sizes: a shape, axes, pads."""
        array = ir.array(value)
        if array is None or array.ndim > 1 or array.dtype.kind not in "iu":
            return None
        return tuple(int(x) for x in np.atleast_1d(array))

    def array(self, value: Value | None) -> Array | None:
        """The constant that a value always is: an initializer, a Constant, or what was found."""
        return ir.array(value)

    def opset(self, node: Node) -> int:
        """The version of the standard operators that the node's model or function imports."""
        return self.model.opset_imports.get("", 1)

    def learn(self, node: Node) -> None:
        """Find the facts of the outputs of a new or changed node from those of its inputs."""
