"""A model in the form that ONNX Runtime opens, without copying large weights.

ONNX Runtime resolves external weights of a model given as bytes against one folder and refuses
what leaves it. So the bytes keep references to the weights where they lie, written relative to
the closest folder that holds all of them; weights that are in memory and too large for the bytes
go to a temporary file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir.light import serialized

INLINE_LIMIT = 1_500_000_000  # bytes; a serialized protobuf ends at 2 GiB
_SPILL_AT = 1024  # smaller weights stay in the bytes
_ALIGN = 64


@dataclass(frozen=True)
class Serialized:
    """The bytes, the folder their external references start from, and what must outlive them."""

    data: bytes
    folder: str | None = None
    keep: tempfile.TemporaryDirectory[str] | None = None


def serialize(
    model: ir.Model, extra_outputs: Sequence[str] = (), inline_limit: int | None = None
) -> Serialized:
    """The model with further outputs (values of the main graph, each once); it is not changed.

    Raises:
        ValueError: an extra output that the main graph does not have.
    """
    _require_values(model, extra_outputs)
    held = [v.const_value for v in _weights(model) if v.const_value is not None]
    external = [t for t in held if isinstance(t, ir.ExternalTensor)]
    limit = INLINE_LIMIT if inline_limit is None else inline_limit
    inline = sum(t.nbytes for t in held if not isinstance(t, ir.ExternalTensor))
    if not external and inline <= limit:
        return Serialized(_with_outputs(model, extra_outputs))
    keep = tempfile.TemporaryDirectory(prefix="onnxslim-", ignore_cleanup_errors=True)
    spill = Path(keep.name, "weights") if inline > limit else None
    folder = _common_folder(external, spill)
    copy = ir.snapshot(model)
    _refer(copy, folder, spill)
    return Serialized(_with_outputs(copy, extra_outputs), folder, keep)


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


def _common_folder(external: Sequence[ir.ExternalTensor], spill: Path | None) -> str:
    folders = {os.path.dirname(os.path.realpath(t.path)) for t in external}
    if spill is not None:
        folders.add(os.path.realpath(spill.parent))
    try:
        return os.path.commonpath(list(folders))
    except ValueError as error:  # Windows only
        raise RuntimeUnavailable(
            f"ONNX Runtime needs all weights on one drive, got {sorted(folders)}; "
            "put the model's data files (or the folder for temporary files) on one drive"
        ) from error


def _refer(model: ir.Model, folder: str, spill: Path | None) -> None:
    """Make every large weight of this copy a reference relative to the folder."""
    with open(os.devnull if spill is None else spill, "wb") as file:
        for value in _weights(model):
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = _reference(
                    tensor, tensor.path, folder, tensor.offset or 0, tensor.length or tensor.nbytes
                )
            elif spill is not None and tensor is not None and _can_spill(tensor):
                offset = _append(file, tensor)
                value.const_value = _reference(tensor, spill, folder, offset, tensor.nbytes)


def _can_spill(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype != ir.DataType.STRING and tensor.nbytes >= _SPILL_AT


def _append(file: BinaryIO, tensor: ir.TensorProtocol) -> int:
    file.write(bytes(-file.tell() % _ALIGN))
    offset = file.tell()
    file.write(tensor.tobytes())
    return offset


def _reference(
    tensor: ir.TensorProtocol, path: str | Path, folder: str, offset: int, length: int
) -> ir.ExternalTensor:
    location = Path(os.path.relpath(os.path.realpath(path), folder)).as_posix()
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor(
        location,
        offset,
        length,
        tensor.dtype,
        shape=shape,
        name=tensor.name or "",
        base_dir=folder,
    )
