"""External data: each reference stays in the model's folder, and the file is long enough."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

from onnxslim.errors import ModelError
from onnxslim.ir.swap import exchange
from onnxslim.ir.tensors import external_like, location_of
from onnxslim.ir.types import ExternalTensor, Model, TensorProtocol
from onnxslim.ir.walk import tensors


def external_tensors(model: Model) -> list[ExternalTensor]:
    """Every tensor whose data lie in another file, attributes and functions included."""
    return [tensor for tensor in tensors(model) if isinstance(tensor, ExternalTensor)]


def bind(model: Model, folder: Path) -> set[Path]:
    """Tell every external tensor the folder of the model, after checking it; the files used.

    Raises:
        ModelError: a location that is absolute, leads out of the folder (`..` or a symbolic link),
            is missing, not a regular file, or shorter than the tensor needs.
    """
    sizes: dict[str, tuple[Path, int]] = {}
    for tensor in external_tensors(model):
        location = location_of(tensor)[1]
        if location not in sizes:
            path = _contained(folder, location, tensor.name)
            sizes[location] = path, path.stat().st_size
        path, size = sizes[location]
        _check_length(tensor, path, size)
    exchange(model, lambda tensor: _bound(tensor, os.fspath(folder)))
    return {path for path, _ in sizes.values()}


def _bound(tensor: TensorProtocol, folder: str) -> TensorProtocol:
    if not isinstance(tensor, ExternalTensor):
        return tensor
    return external_like(tensor, tensor.name, folder, location_of(tensor)[1], tensor.offset or 0)


def _contained(folder: Path, location: str, name: str) -> Path:
    what = f"external data of '{name}'"
    if not location:
        raise ModelError(f"{what}: no location is given")
    if PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute():
        raise ModelError(f"{what}: the location '{location}' is absolute; expected a relative one")
    if ".." in PurePosixPath(location).parts or ".." in PureWindowsPath(location).parts:
        raise ModelError(f"{what}: the location '{location}' leads out of the model's folder")
    path = folder / location
    try:
        real, info = path.resolve(strict=True), path.stat()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"{what}: the file '{path}' is missing; put it next to the model"
        ) from error
    if not real.is_relative_to(folder.resolve()):
        raise ModelError(
            f"{what}: '{path}' is a link to '{real}', out of the model's folder; copy it"
        )
    if not stat.S_ISREG(info.st_mode):
        raise ModelError(f"{what}: '{path}' is not a regular file")
    return path


def _check_length(tensor: ExternalTensor, path: Path, size: int) -> None:
    offset, needed = tensor.offset or 0, tensor.nbytes
    length = tensor.length if tensor.length is not None else needed
    if offset < 0 or length != needed:
        raise ModelError(
            f"external data of '{tensor.name}': offset {offset}, length {length}; "
            f"expected {needed} bytes for its shape and type"
        )
    if offset + needed > size:
        raise ModelError(
            f"external data of '{tensor.name}': '{path}' is too short: {size} bytes, "
            f"expected at least {offset + needed}"
        )
