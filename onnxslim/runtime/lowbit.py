"""Feeding and reading element types that numpy itself lacks: bfloat16, float8, 4-bit integers.

ONNX Runtime's Python binding has no numpy type for them, so their bytes are passed as they lie.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from onnxslim import ir
from onnxslim.runtime.samples import Array
from onnxslim.runtime.types import numpy_dtype


def is_native(dtype: np.dtype[Any] | None) -> bool:
    """Whether the binding passes arrays of this type by itself."""
    return dtype is None or (dtype.kind in "OUSbiufc" and dtype.isbuiltin == 1)


def to_ort(array: Array) -> Any:
    """An OrtValue of an array, whatever its type."""
    import onnxruntime as rt

    array = np.ascontiguousarray(array).reshape(array.shape)
    if is_native(array.dtype):
        return rt.OrtValue.ortvalue_from_numpy(array)
    kind = ir.DataType.from_numpy(array.dtype)
    if kind.bitwidth < 8:
        return _packed(array, kind)
    bits = array.view(f"u{array.dtype.itemsize}")
    return rt.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, int(kind))


def from_ort(value: Any) -> Any:
    """The array (or list of arrays) that an OrtValue holds; low-bit types as ml_dtypes arrays."""
    if not value.is_tensor():
        return value.numpy()
    kind = ir.DataType(value.element_type())
    dtype = numpy_dtype(kind)
    if dtype is None or is_native(dtype):
        return value.numpy()
    shape = tuple(value.shape())
    size = int(np.prod(shape, dtype=np.int64))
    packed = ctypes.string_at(value.data_ptr(), -(-size * kind.bitwidth // 8)) if size else b""
    if kind.bitwidth == 8 * dtype.itemsize:
        whole: Array = np.array(np.frombuffer(packed, dtype)).reshape(shape)
        return whole
    return _unpack(packed, size, kind.bitwidth, dtype).reshape(shape)


def _packed(array: Array, kind: ir.DataType) -> Any:
    """An OrtValue of elements of 4 or 2 bits, lowest bits first."""
    import onnxruntime as rt

    value = rt.OrtValue.ortvalue_from_shape_and_type(list(array.shape), int(kind), "cpu")
    per_byte = 8 // kind.bitwidth
    fields = array.reshape(-1).view(np.uint8) & np.uint8((1 << kind.bitwidth) - 1)
    fields = np.pad(fields, (0, -fields.size % per_byte)).reshape(-1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(kind.bitwidth)
    data = np.bitwise_or.reduce(fields << shifts, axis=1).astype(np.uint8).tobytes()
    ctypes.memmove(value.data_ptr(), data, len(data))
    return value


def _unpack(packed: bytes, size: int, bits: int, dtype: np.dtype[Any]) -> Array:
    """Elements of 4 or 2 bits, lowest bits first, sign-extended by the element type."""
    raw: Array = np.frombuffer(packed, np.uint8)
    per_byte = 8 // bits
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    fields: Array = (raw[:, None] >> shifts & np.uint8((1 << bits) - 1)).reshape(-1)[:size]
    result: Array = fields.view(dtype) if dtype.kind == "V" else fields.astype(dtype)
    return result
