"""Loading and saving. (First cut: the guards come with the rest of the IR layer.)"""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir
from onnx import ModelProto

from onnxslim.ir.types import Model

ModelLike = str | os.PathLike[str] | bytes | ModelProto | Model


def load(source: ModelLike) -> Model:
    """The IR of a path, serialized bytes, a `ModelProto`, a `gs.Graph` or an `ir.Model`."""
    if isinstance(source, Model):
        return source
    if isinstance(source, ModelProto):
        return onnx_ir.from_proto(source)
    if isinstance(source, bytes):
        return onnx_ir.from_proto(ModelProto.FromString(source))
    return onnx_ir.load(source)


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write the model to a path."""
    onnx_ir.save(model, Path(path))


def to_bytes(model: Model) -> bytes:
    """The serialized model with all weights inside; up to 2 GB."""
    return onnx_ir.to_proto(model).SerializeToString()
