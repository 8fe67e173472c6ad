"""Saving: the old output stays whole until the new one is; nothing is left behind on failure.

With external data there are two files. At every moment the model at the path and the data that it
names are a valid pair: new data get a name of their own, then the model that names them is
renamed into place. Data that already have the final name are replaced only after that, in three
more renames (`_settle`). Processes that write such a pair to one path do so one after the other:
else the model of one could come to lie beside the data of another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from onnxslim.errors import ModelError
from onnxslim.ir.collector import paused
from onnxslim.ir.files import Staging, check_target, output_errors
from onnxslim.ir.io import SOURCE, data_files
from onnxslim.ir.light import SMALL, serialized
from onnxslim.ir.names import fix_names
from onnxslim.ir.swap import exchange, inside, swapped
from onnxslim.ir.tensors import external_like, write_data
from onnxslim.ir.types import DataType, ExternalTensor, Model, TensorProtocol
from onnxslim.ir.verify import verified
from onnxslim.ir.walk import tensors
from onnxslim.leftovers import in_turn

INSIDE_LIMIT = 1_500_000_000
"""Bytes. Weights above this total are written as external data."""


def save(model: Model, path: str | os.PathLike[str], external: bool | None = None) -> None:
    """Write the model to a path, atomically; weights in `NAME.data` beside it when `external`.

    By default they go there when the model came with external data or they pass 1.5 GB. Data are
    streamed: memory stays below the largest weight that is not itself in a file. If the data
    file that the model was loaded from is replaced, the model reads the new one from then on;
    snapshots of it become unusable (reading their weights raises).

    Raises:
        ModelError: the model is not valid.
        OutputError: it cannot be written; what was at the path before is still there.
    """
    if not isinstance(model, Model):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ModelError(f"got a {type(model).__name__}; expected what load gives: save(load(...))")
    target = Path(path)
    check_target(target)
    with paused():
        fix_names(model)
        if external is None:
            external = wants_external(model)
        external = external and any(is_big(tensor) for tensor in tensors(model))
        content = verified(model)
    with output_errors(target), Staging(target.absolute().parent) as staging:
        if external:
            with in_turn(target.absolute().with_name(f".{target.name}.lock")):
                _save_pair(model, target.absolute(), staging)
        else:
            parts = content.parts()
            _place(lambda file: content.write(parts, file), target.absolute(), staging)


def wants_external(model: Model) -> bool:
    """Whether weights belong in a file of their own: they were in one, or are over 1.5 GB."""
    if data_files(model):
        return True
    each = {id(tensor): tensor for tensor in tensors(model)}.values()
    if any(isinstance(tensor, ExternalTensor) for tensor in each):
        return True
    return sum(tensor.nbytes for tensor in each) > INSIDE_LIMIT


def is_big(tensor: TensorProtocol) -> bool:
    """Whether the tensor goes into the data file, when there is one."""
    return tensor.nbytes > SMALL and tensor.dtype != DataType.STRING


def _place(write: Callable[[BinaryIO], object], target: Path, staging: Staging) -> None:
    made = staging.fresh(f".{target.name}", ".tmp")
    with staging.writing(made) as file:
        write(file)
    staging.place(made, target)


def _place_model(data: bytes, target: Path, staging: Staging) -> None:
    _place(lambda file: file.write(data), target, staging)


@dataclass
class _Layout:
    """Where each tensor lies in the data file: offsets by identity of the tensor."""

    offsets: dict[int, int]
    kept: list[TensorProtocol]  # alive, so that no identity is used twice

    def moved(self, tensor: TensorProtocol, data: Path) -> TensorProtocol:
        """The tensor as a reference into the data file; small ones go into the proto."""
        offset = self.offsets.get(id(tensor))
        if offset is None:
            return inside(tensor)
        name, folder = tensor.name or "", os.fspath(data.parent)
        return external_like(tensor, name, folder, data.name, offset)


def _save_pair(model: Model, target: Path, staging: Staging) -> None:
    final = _data_path(model, target)
    data = staging.unused(target.name, ".data") if final.exists() else final
    made = staging.fresh(f".{target.name}", ".data.tmp")
    with staging.writing(made) as file:
        layout = _write_data(model, file)
    before = staging.identity(target)
    try:
        staging.place(made, data)
        _place_model(_bytes_with(model, layout, data), target, staging)
    except BaseException:
        if staging.identity(target) == before:  # the model that names these data is not there
            data.unlink(missing_ok=True)
        raise
    if data != final:
        _settle(model, layout, data, final, target, staging)


def _bytes_with(model: Model, layout: _Layout, data: Path) -> bytes:
    with swapped(model, lambda tensor: layout.moved(tensor, data)):
        content: bytes = serialized(model).SerializeToString()
    return content


def _settle(
    model: Model, layout: _Layout, data: Path, final: Path, target: Path, staging: Staging
) -> None:
    """Give the data the final name: a second name for them, the model that uses it, then unlink.

    Where the file system has no hard links the pair stays as it is: valid, under the other name.
    """
    second = staging.fresh(f".{final.name}", ".tmp")
    try:
        os.link(data, second)
    except OSError:
        return
    staging.place(second, final)
    before = staging.identity(target)
    try:
        _place_model(_bytes_with(model, layout, final), target, staging)
    finally:
        if staging.identity(target) != before:
            data.unlink(missing_ok=True)
    if final in data_files(model):
        _read_from(model, layout, final)


def _data_path(model: Model, target: Path) -> Path:
    """NAME.data, or with a number where that file belongs to the model that we were given."""
    taken = frozenset[Path]() if model.meta.get(SOURCE) == target else data_files(model)
    path, number = target.with_name(f"{target.name}.data"), 0
    while any(path.exists() and path.samefile(other) for other in taken if other.exists()):
        number += 1
        path = target.with_name(f"{target.name}.{number}.data")
    return path


def _write_data(model: Model, file: BinaryIO) -> _Layout:
    """Every big tensor, each object once; the largest begin on pages so that they can be mapped."""
    layout = _Layout({}, [])
    for tensor in tensors(model):
        if not is_big(tensor) or id(tensor) in layout.offsets:
            continue
        alignment = 4096 if tensor.nbytes >= 2**20 else 64
        file.write(bytes(-file.tell() % alignment))
        layout.offsets[id(tensor)] = file.tell()
        layout.kept.append(tensor)
        write_data(tensor, file)
    return layout


def _read_from(model: Model, layout: _Layout, data: Path) -> None:
    """Let the model read the new file, and make the references into the replaced one fail."""
    old = [t for t in tensors(model) if isinstance(t, ExternalTensor) and Path(t.path) == data]
    exchange(model, lambda t: layout.moved(t, data) if isinstance(t, ExternalTensor) else t)
    for tensor in old:
        tensor.invalidate()
