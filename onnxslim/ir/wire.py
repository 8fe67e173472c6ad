"""A serialized model cut into what it is and the bytes of its big tensors, and put together again.

Protobuf copies every byte field that it parses or writes. Here only the framing is read: fields
shorter than a limit are passed over, so that the cost is that of the fields and not of the bytes.
Encoding: https://protobuf.dev/programming-guides/encoding; field numbers: onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


class WireError(ValueError):
    """The bytes are not framed as a message; protobuf's own parser has to judge them."""


@dataclass(frozen=True)
class Payload:
    """Bytes that are somewhere else: a number to find them by, and how many they are."""

    number: int
    length: int

    def __len__(self) -> int:
        return self.length


Part: TypeAlias = "bytes | memoryview | Payload"

Worth = Callable[[int, int], bool]
"""Whether to look into the message between two offsets."""

Swap = Callable[[int, int], "list[Part] | None"]
"""What to put in the place of the TensorProto between two offsets; None to leave it."""

_MODEL, _GRAPH, _FUNCTION, _NODE, _ATTRIBUTE, _TENSOR = range(6)

_INSIDE = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR},
    _FUNCTION: {7: _NODE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 11: _GRAPH},
}
"""Kind of message -> field number -> the kind of message in it, on the ways to a tensor."""

_DEPTH = 100  # protobuf's own limit of nesting

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def replaced(model: memoryview, worth: Worth, swap: Swap) -> list[Part]:
    """The serialized model with other tensors, in pieces; only messages `worth` it are looked at.

    Raises:
        WireError: the framing is broken.
    """
    return _Rewriter(model, worth, swap).message(_MODEL, 0, len(model)) or [model]


def size(parts: list[Part]) -> int:
    """How many bytes the parts have together."""
    return sum(map(len, parts))


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """An unsigned number of up to 64 bits and where it ends.

    Raises:
        WireError: it is longer, or the data end in it.
    """
    number = shift = 0
    try:
        while (byte := data[at]) & 0x80:
            number |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if shift > 63:
                raise WireError("a number is too long")
    except IndexError as error:
        raise WireError("the data end in a number") from error
    return number | byte << shift, at + 1


def as_varint(number: int) -> bytes:
    """The number as `varint` reads it."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def headed(field: int, length: int) -> bytes:
    """What precedes that many bytes of a field."""
    return as_varint(field << 3 | BYTES) + as_varint(length)


def field_at(data: memoryview, at: int, end: int) -> tuple[int, int, int, int]:
    """The field that begins there: number, wire type, and where its content begins and ends.

    Raises:
        WireError: the framing is broken.
    """
    key, at = varint(data, at)
    kind = key & 7
    if kind == BYTES:
        length, at = varint(data, at)
        stop = at + length
    elif kind == VARINT:
        stop = varint(data, at)[1]
    elif kind in (FIXED32, FIXED64):
        stop = at + (4 if kind == FIXED32 else 8)
    else:
        raise WireError(f"wire type {kind}")
    if stop > end or key < 8:
        raise WireError("the data end in a field")
    return key >> 3, kind, at, stop


@dataclass(frozen=True)
class _Rewriter:
    data: memoryview
    worth: Worth
    swap: Swap

    def message(self, kind: int, start: int, end: int, depth: int = 0) -> list[Part] | None:
        """What to put in the place of the message; None where nothing in it changes."""
        if depth > _DEPTH:
            raise WireError("nested too deeply")
        inside, parts, kept, at = _INSIDE[kind], list[Part](), start, start
        while at < end:
            begin = at
            field, wire, content, at = field_at(self.data, at, end)
            if wire != BYTES or field not in inside or not self.worth(content, at):
                continue
            made = self._child(inside[field], content, at, depth)
            if made is not None:
                parts += [self.data[kept:begin], headed(field, size(made)), *made]
                kept = at
        return [*parts, self.data[kept:end]] if parts else None

    def _child(self, kind: int, start: int, end: int, depth: int) -> list[Part] | None:
        if kind == _TENSOR:
            return self.swap(start, end)
        return self.message(kind, start, end, depth + 1)
