"""A model in the form that ONNX Runtime opens, without copying large weights.

ONNX Runtime resolves external weights of a model given as bytes against one folder and refuses
what leaves it. So the bytes keep references to the weights where they lie (in files of external
data, or in the model file itself), written relative to the closest folder that holds all of them;
weights that are in memory and too large for the bytes go to a temporary file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir.light import serialized
from onnxslim.ir.mapped import MappedTensor
from onnxslim.ir.swap import swapped
from onnxslim.scratch import Scratch

INLINE_LIMIT = 256 << 20
"""Bytes; a serialized protobuf ends at 2 GiB, and while ONNX Runtime opens it there are four copies
of what it holds, one of what is mapped."""
_SPILL_AT = 1024  # smaller weights stay in the bytes
_ALIGN = 64


@dataclass(frozen=True)
class Serialized:
    """The bytes, the folder their external references start from, and what must outlive them."""

    data: bytes
    folder: str | None = None
    keep: Scratch | None = None


@dataclass(frozen=True)
class Place:
    """Where the bytes of a tensor lie in a file; the path has no links."""

    path: str
    offset: int
    length: int


def serialize(
    model: ir.Model, extra_outputs: Sequence[str] = (), inline_limit: int | None = None
) -> Serialized:
    """The model with further outputs (values of the main graph, each once); it is not changed.

    Raises:
        ValueError: an extra output that the main graph does not have.
    """
    _require_values(model, extra_outputs)
    held = [v.const_value for v in _weights(model) if v.const_value is not None]
    places = {id(tensor): place for tensor in held if (place := _place(tensor)) is not None}
    limit = INLINE_LIMIT if inline_limit is None else inline_limit
    spills = sum(t.nbytes for t in held if id(t) not in places) > limit
    if not places and not spills:
        return Serialized(_with_outputs(model, extra_outputs))
    keep = None
    if spills:
        keep = Scratch()
        with Path(os.path.realpath(keep.path), "weights").open("wb") as file:
            places |= {id(t): _spilled(t, file) for t in held if _can_spill(t, places)}
    folder = _common_folder({os.path.dirname(place.path) for place in places.values()})

    def refer(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        place = places.get(id(tensor))
        return tensor if place is None else _reference(tensor, place, folder)

    with swapped(model, refer, attributes=False):
        return Serialized(_with_outputs(model, extra_outputs), folder, keep)


def _place(tensor: ir.TensorProtocol) -> Place | None:
    """Where ONNX Runtime finds the data of a tensor itself."""
    if isinstance(tensor, ir.ExternalTensor):
        length = tensor.length or tensor.nbytes
        return Place(os.path.realpath(tensor.path), tensor.offset or 0, length)
    found = tensor.place if isinstance(tensor, MappedTensor) else None
    return None if found is None else Place(os.path.realpath(found[0]), found[1], tensor.nbytes)


def _require_values(model: ir.Model, names: Sequence[str]) -> None:
    if not names:
        return
    graph = model.graph
    have = {v.name for v in graph.inputs} | set(graph.initializers)
    have.update(v.name for node in graph for v in node.outputs)
    for name in names:
        if name not in have:
            raise ValueError(f"no value {name!r} in the main graph to give out")


def _weights(model: ir.Model) -> Iterator[ir.Value]:
    for scope in ir.scopes(model):
        if isinstance(scope, ir.Graph):
            yield from scope.initializers.values()


def _with_outputs(model: ir.Model, extra: Sequence[str]) -> bytes:
    proto = serialized(model)
    have = {output.name for output in proto.graph.output}
    for name in dict.fromkeys(extra):
        if name not in have:  # without a type: ONNX Runtime infers it
            proto.graph.output.add().name = name
    data: bytes = proto.SerializeToString()
    return data


def _common_folder(folders: Iterable[str]) -> str:
    try:
        return os.path.commonpath(list(folders))
    except ValueError as error:  # Windows only
        raise RuntimeUnavailable(
            f"ONNX Runtime needs all weights on one drive, got {sorted(folders)}; "
            "put the model's data files (or the folder for temporary files) on one drive"
        ) from error


def _can_spill(tensor: ir.TensorProtocol, places: Mapping[int, Place]) -> bool:
    big = tensor.dtype != ir.DataType.STRING and tensor.nbytes >= _SPILL_AT
    return big and id(tensor) not in places


def _spilled(tensor: ir.TensorProtocol, file: BinaryIO) -> Place:
    """Append the data to a file."""
    file.write(bytes(-file.tell() % _ALIGN))
    offset = file.tell()
    file.write(tensor.tobytes())
    return Place(file.name, offset, tensor.nbytes)


def _reference(tensor: ir.TensorProtocol, place: Place, folder: str) -> ir.ExternalTensor:
    """The tensor as one whose data ONNX Runtime reads from there."""
    return ir.ExternalTensor(
        Path(os.path.relpath(place.path, folder)).as_posix(),
        place.offset,
        place.length,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
        base_dir=folder,
    )
