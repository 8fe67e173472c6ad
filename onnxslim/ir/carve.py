"""Big tensors taken out of a serialized model and put into one: protobuf gets the rest.

Both ways the rest is a complete proto. In the place of a big tensor it has one that carries a
number in its metadata, under a key that no file can know.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from onnx import ModelProto, TensorProto
from onnx_ir.serde import TensorProtoTensor

from onnxslim.errors import ModelError
from onnxslim.ir.light import PROTO_LIMIT, SMALL, serialized
from onnxslim.ir.mapped import MappedTensor, Source, forget_mapped
from onnxslim.ir.swap import exchange, inside, swapped
from onnxslim.ir.tensors import write_data
from onnxslim.ir.types import DataType, ExternalTensor, Model, Tensor, TensorProtocol
from onnxslim.ir.wire import (
    BYTES,
    VARINT,
    Part,
    Payload,
    WireError,
    field_at,
    headed,
    replaced,
    size,
    varint,
)

CARVED = 1 << 14
"""Bytes. Tensors from this size on are taken out."""

_PAGES = 1 << 20  # bytes of a tensor whose making may have touched many pages of a model file
_DIMS, _DATA_TYPE, _RAW, _LOCATION, _METADATA = 1, 2, 9, 14, 16
_OTHER_DATA = frozenset({3, 4, 5, 6, 7, 10, 11, 13})  # segments, typed data, external data


# Out of a file


@dataclass(frozen=True)
class Carved:
    """A serialized model whose big tensors have no data, and where those are: offset, length."""

    skeleton: bytes
    spans: list[tuple[int, int]]
    key: str

    def attach(self, model: Model, source: Source) -> bool:
        """Give the model that was parsed its tensors; False when not every one has a place.

        The proto that the model was made of keeps empty tensors, for ONNX's checker.
        """
        placed: set[int] = set()

        def swap(tensor: TensorProtocol) -> TensorProtocol:
            number = tensor.metadata_props.get(self.key)
            if number is None or not isinstance(tensor, TensorProtoTensor):
                return tensor
            offset, length = self.spans[int(number)]
            made = MappedTensor(source, offset, tensor)
            del made.metadata_props[self.key]
            if made.nbytes == length:
                placed.add(int(number))
                tensor.raw.dims[:] = [0]
            return made

        exchange(model, swap)
        return len(placed) == len(self.spans)


def carve(data: memoryview) -> Carved | None:
    """Take out what `data`, a serialized model, has of big tensors; None if it is damaged."""
    key, spans = secrets.token_hex(16), list[tuple[int, int]]()

    def swap(start: int, end: int) -> list[Part] | None:
        found = _raw_data(data, start, end)
        if found is None:
            return None
        head, begin, stop = found
        mark = _metadata(key.encode(), str(len(spans)).encode())
        spans.append((begin, stop - begin))
        return [data[start:head], data[stop:end], mark]

    try:
        parts = replaced(data, lambda start, end: end - start >= CARVED, swap)
    except WireError:
        return None
    pieces = [part for part in parts if not isinstance(part, Payload)]
    return Carved(b"".join(pieces), spans, key)


def _raw_data(data: memoryview, start: int, end: int) -> tuple[int, int, int] | None:
    """Where the raw data of a tensor have their head, begin and stop; None if they stay.

    They stay when they are small, not alone, or not as many as shape and type ask for.
    """
    found: tuple[int, int, int] | None = None
    dims, dtype, at = list[int](), 0, start
    while at < end:
        head = at
        field, kind, begin, at = field_at(data, at, end)
        if field == _RAW and kind == BYTES and found is None:
            found = head, begin, at
        elif field == _DIMS:
            dims += _numbers(data, kind, begin, at)
        elif field == _DATA_TYPE and kind == VARINT:
            dtype = varint(data, begin)[0]
        elif field in _OTHER_DATA or field == _RAW or (field == _LOCATION and data[begin]):
            return None
    if found is None or not CARVED <= found[2] - found[1] == _bytes_of(dtype, dims):
        return None
    return found


def _numbers(data: memoryview, kind: int, at: int, end: int) -> Iterator[int]:
    """The numbers of a repeated field, one or packed."""
    if kind in (VARINT, BYTES):
        while at < end:
            number, at = varint(data, at)
            yield number


def _bytes_of(dtype: int, dims: list[int]) -> int | None:
    try:
        kind = DataType(dtype)
        return None if kind == DataType.STRING else math.ceil(math.prod(dims) * kind.bitwidth / 8)
    except (ValueError, TypeError, OverflowError):  # no type of a fixed size
        return None


def _metadata(key: bytes, value: bytes) -> bytes:
    entry = headed(1, len(key)) + key + headed(2, len(value)) + value
    return headed(_METADATA, len(entry)) + entry


# Into a file


def _hollow(tensor: TensorProtocol, key: str, number: int) -> TensorProtocol:
    """A tensor without elements in the place of one with many."""
    return Tensor(
        np.zeros(0, tensor.dtype.numpy()),
        dtype=tensor.dtype,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props) | {key: str(number)},
    )


@dataclass(frozen=True)
class Skeleton:
    """A proto with hollow tensors, and the tensors that they stand for by number."""

    proto: ModelProto
    tensors: list[TensorProtocol]
    key: str

    def parts(self) -> list[Part]:
        """The serialized model with all data inside, in pieces.

        Raises:
            ModelError: they are over 2 GB together.
        """
        content: bytes = self.proto.SerializeToString()
        key = self.key.encode()

        def swap(start: int, end: int) -> list[Part] | None:
            return self._filled(content[start:end])

        def worth(start: int, end: int) -> bool:
            return content.find(key, start, end) >= 0

        parts = replaced(memoryview(content), worth, swap)
        if size(parts) > PROTO_LIMIT:
            raise ModelError(
                f"the model takes {size(parts) / 1e9:.1f} GB, a proto holds 2 GB; "
                "save its weights as external data"
            )
        return parts

    def _filled(self, hollow: bytes) -> list[Part]:
        proto = TensorProto.FromString(hollow)
        entry = next(e for e in proto.metadata_props if e.key == self.key)
        number = int(entry.value)
        tensor = self.tensors[number]
        proto.metadata_props.remove(entry)
        proto.ClearField("raw_data")
        proto.dims[:] = [int(size) for size in tensor.shape.numpy()]
        header: bytes = proto.SerializeToString()
        return [header, headed(_RAW, tensor.nbytes), Payload(number, tensor.nbytes)]

    def write(self, parts: list[Part], file: BinaryIO) -> None:
        """Write the pieces to a file, each tensor from where it lies.

        Raises:
            ModelError: a tensor does not have the bytes that its shape and type ask for.
        """
        for part in parts:
            if not isinstance(part, Payload):
                file.write(part)
                continue
            tensor, begin = self.tensors[part.number], file.tell()
            write_data(tensor, file)
            if file.tell() - begin != part.length:
                raise ModelError(
                    f"the weight '{tensor.name}' has {file.tell() - begin} bytes; "
                    f"expected {part.length} for its shape and type"
                )
            if part.length >= _PAGES and not isinstance(tensor, MappedTensor):
                forget_mapped()  # what it was computed from


def skeleton(model: Model) -> Skeleton:
    """The model as a proto that ONNX's checker takes, its big tensors hollow."""
    key, taken = secrets.token_hex(16), list[TensorProtocol]()

    def swap(tensor: TensorProtocol) -> TensorProtocol:
        if not _can_be_hollow(tensor):
            return inside(tensor)
        taken.append(tensor)
        return _hollow(tensor, key, len(taken) - 1)

    with swapped(model, swap):
        return Skeleton(serialized(model), taken, key)


def _can_be_hollow(tensor: TensorProtocol) -> bool:
    """Whether it is big, or in another file; data of a proto that are not raw stay as they are."""
    if isinstance(tensor, ExternalTensor):
        return True
    if isinstance(tensor, TensorProtoTensor):
        return tensor.nbytes >= CARVED and tensor.raw.HasField("raw_data")
    return tensor.dtype != DataType.STRING and tensor.nbytes >= min(CARVED, SMALL)
