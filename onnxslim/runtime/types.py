"""What a graph input or output is, read from the model itself: no session is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxslim import ir


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output. Unknown dimensions are names or None."""

    name: str
    dtype: np.dtype[Any] | None  # of the elements; None where numpy has no type for them
    shape: tuple[int | str | None, ...] | None  # of the tensor, or of a sequence's elements
    optional: bool = False  # need not be fed: it has a default, or its type is optional
    sequence: bool = False  # fed as a list of arrays


def input_infos(model: ir.Model) -> tuple[TensorInfo, ...]:
    """What the model is fed with, in order; inputs with a default value are optional."""
    defaults = model.graph.initializers
    return tuple(_info(value, value.name in defaults) for value in model.graph.inputs)


def numpy_dtype(dtype: ir.DataType | None) -> np.dtype[Any] | None:
    """The numpy (or ml_dtypes) type of an ONNX element type; strings are objects."""
    if dtype is None or dtype == ir.DataType.UNDEFINED:
        return None
    if dtype == ir.DataType.STRING:
        return np.dtype(object)
    try:
        return np.dtype(dtype.numpy())
    except TypeError:
        return None


def _info(value: ir.Value, has_default: bool) -> TensorInfo:
    shape = None if value.shape is None else tuple(_dimension(d) for d in value.shape)
    kinds = _type_chain(value)
    return TensorInfo(
        value.name or "",
        numpy_dtype(value.dtype),
        shape,
        optional=has_default or "OptionalType" in kinds,
        sequence="SequenceType" in kinds,
    )


def _dimension(dim: int | ir.SymbolicDim) -> int | str | None:
    if isinstance(dim, int):
        return dim if dim >= 0 else None  # some exporters write -1 for a free one
    return dim.value


def _type_chain(value: ir.Value) -> list[str]:
    """The names of the types from outside in, such as OptionalType, SequenceType, TensorType."""
    chain: list[str] = []
    kind: Any = value.type
    while kind is not None:
        chain.append(type(kind).__name__)
        inner = getattr(kind, "elem_type", None)
        kind = None if isinstance(inner, ir.DataType) else inner
    return chain
