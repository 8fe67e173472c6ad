"""Making tensors, giving them other names and placing them on values, never copying their data."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeAlias, cast

import numpy as np

from onnxslim.ir.types import (
    DataType,
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

PathLike: TypeAlias = "str | os.PathLike[str]"


def static_shape(tensor: TensorProtocol) -> Shape:
    """A shape object of its own; a tensor's dimensions are always numbers."""
    return Shape([int(size) for size in tensor.shape.numpy()])


def make_tensor(content: Array | TensorProtocol, name: str) -> TensorProtocol:
    """A tensor of that name: an array (numpy's or ml_dtypes' types, strings) or another tensor."""
    if not isinstance(content, np.ndarray):
        return renamed(content, name)
    if content.dtype.kind in "OUS":
        texts: list[object] = content.ravel().tolist()
        flat = [text if isinstance(text, bytes) else str(text).encode() for text in texts]
        return StringTensor(flat, shape=Shape(content.shape), name=name)
    return Tensor(np.asarray(content, order="C"), name=name)


def renamed(tensor: TensorProtocol, name: str) -> TensorProtocol:
    """The same data under another name. The given tensor keeps its own: others may hold it."""
    if tensor.name == name:
        return tensor
    if isinstance(tensor, ExternalTensor):
        return external_like(tensor, name, *location_of(tensor), tensor.offset or 0)
    if isinstance(tensor, StringTensor):
        return StringTensor(tensor.string_data(), shape=static_shape(tensor), name=name)
    return view(tensor, name)


def view(tensor: TensorProtocol, name: str | None) -> LazyTensor:
    """A tensor that hands out the other's data, wherever those lie."""
    return LazyTensor(
        lambda: tensor,
        tensor.dtype,
        static_shape(tensor),
        name=name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


class _Derived(LazyTensor):
    """A tensor that is computed at each use, and kept from the third on.

    A weight that is written once takes no memory; one that is read again and again is computed
    three times at most.
    """

    __slots__ = ("_uses",)

    def _evaluate(self) -> TensorProtocol:
        self._uses: int = getattr(self, "_uses", 0) + 1
        self.cache = self._uses > 2
        return super()._evaluate()


def lazy_tensor(
    compute: Callable[[], Array], dtype: DataType, shape: Sequence[int], name: str = ""
) -> TensorProtocol:
    """A tensor whose elements are computed when they are needed; type and shape are known now.

    `compute` gives the same array whenever it is called, of that shape and type, from what never
    changes: tensors, not values of a graph. Using the tensor raises ValueError if it does not.
    """
    sizes = tuple(int(size) for size in shape)

    def evaluated() -> TensorProtocol:
        array = compute()
        if array.shape != sizes:
            raise ValueError(f"'{name}' was computed as {array.shape}; expected {sizes}")
        return Tensor(np.asarray(array, order="C"), dtype=dtype, name=name)

    return _Derived(evaluated, dtype, Shape(sizes), name=name)


class FileTensor(ExternalTensor):
    """An external tensor whose place was checked when the model was loaded, or that we wrote.

    onnx-ir checks again at each use and refuses files with several hard links, which package
    installers make of a whole cache, and which exist for a moment while we replace a data file.
    """

    __slots__ = ()

    def _check_path_containment(self) -> None:
        """Nothing: see `onnxslim.ir.external`."""


def external_like(
    tensor: TensorProtocol, name: str, folder: str, location: str, offset: int
) -> ExternalTensor:
    """A reference into a file for data of the type and shape of the tensor."""
    return FileTensor(
        location,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=static_shape(tensor),
        name=name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
        base_dir=folder,
    )


def location_of(tensor: ExternalTensor) -> tuple[str, str]:
    """The folder and the location within it, as text."""
    paths = cast("tuple[PathLike, PathLike]", (tensor.base_dir, tensor.location))
    return os.fspath(paths[0]), os.fspath(paths[1])


def write_data(tensor: TensorProtocol, file: BinaryIO) -> None:
    """Append the tensor's bytes to a file, without a copy in memory where it can be done."""
    write: Callable[[BinaryIO], None] | None = getattr(tensor, "tofile", None)
    if write is None:
        file.write(tensor.tobytes())
        return
    try:
        write(file)
    except OSError as error:
        if error.errno is None:  # numpy counts what it wrote and does not say why it ended
            _meet_the_end(file)
        raise


def _meet_the_end(file: BinaryIO) -> None:
    """Write on where nothing more fits; raises the system's OSError."""
    for _ in range(2):  # the first may still fill what is left
        os.write(file.fileno(), bytes(1 << 16))


def set_constant(value: Value, tensor: TensorProtocol) -> None:
    """Put the tensor on the value, whose type and shape follow; type objects are never shared."""
    value.const_value = tensor
    value.type = TensorType(tensor.dtype)
    value.shape = static_shape(tensor)


def rename(value: Value, name: str) -> None:
    """Rename a value. The tensor of an initializer is replaced, not renamed: others may hold it."""
    if value.const_value is not None:
        value.const_value = renamed(value.const_value, name)
    value.name = name
