"""Making tensors, giving them other names and placing them on values, never copying their data."""

from __future__ import annotations

import numpy as np

from onnxslim.ir.types import (
    ExternalTensor,
    LazyTensor,
    Shape,
    StringTensor,
    Tensor,
    TensorProtocol,
    TensorType,
    Value,
)
from onnxslim.ir.walk import Array


def make_tensor(content: Array | TensorProtocol, name: str) -> TensorProtocol:
    """A tensor of that name: an array (numpy's or ml_dtypes' types, strings) or another tensor."""
    if not isinstance(content, np.ndarray):
        return renamed(content, name)
    if content.dtype.kind in "OUS":
        flat = [text if isinstance(text, bytes) else str(text).encode() for text in content.flat]
        return StringTensor(flat, shape=Shape(content.shape), name=name)
    return Tensor(np.asarray(content, order="C"), name=name)


def renamed(tensor: TensorProtocol, name: str) -> TensorProtocol:
    """The same data under another name. The given tensor keeps its own: others may hold it."""
    if tensor.name == name:
        return tensor
    if isinstance(tensor, ExternalTensor):
        return ExternalTensor(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=tensor.shape,
            name=name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
            base_dir=tensor.base_dir,
        )
    if isinstance(tensor, StringTensor):
        return StringTensor(tensor.string_data(), shape=tensor.shape, name=name)
    return LazyTensor(
        lambda: tensor,
        tensor.dtype,
        Shape(tensor.shape.dims),
        name=name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def set_constant(value: Value, tensor: TensorProtocol) -> None:
    """Put the tensor on the value, whose type and shape follow; type objects are never shared."""
    value.const_value = tensor
    value.type = TensorType(tensor.dtype)
    value.shape = Shape(tensor.shape.dims)


def rename(value: Value, name: str) -> None:
    """Rename a value. The tensor of an initializer is replaced, not renamed: others may hold it."""
    if value.const_value is not None:
        value.const_value = renamed(value.const_value, name)
    value.name = name
