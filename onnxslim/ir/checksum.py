"""A hash of what a model is: the same wherever its weights lie and however they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from onnxslim.ir.collector import paused
from onnxslim.ir.light import serialized
from onnxslim.ir.mapped import MappedTensor
from onnxslim.ir.swap import swapped
from onnxslim.ir.types import DataType, ExternalTensor, Model, Tensor, TensorProtocol
from onnxslim.ir.walk import tensors

CHUNK = 1 << 22


def checksum(model: Model) -> str:
    """SHA-256 of the graph and all tensors, as 64 hexadecimal digits; weights are streamed."""
    digest = hashlib.sha256()
    hollow = Tensor(np.zeros((), np.uint8))  # one for all: the proto gives it each name in turn
    with paused(), swapped(model, lambda tensor: hollow):
        digest.update(serialized(model).SerializeToString(deterministic=True))
    for tensor in tensors(model):
        digest.update(f"{tensor.name}\0{tensor.dtype.name}\0{tensor.shape.numpy()}\0".encode())
        for chunk in _chunks(tensor):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(tensor: TensorProtocol) -> Iterator[bytes | memoryview]:
    """The bytes of a tensor, from its file a piece at a time."""
    if tensor.dtype == DataType.STRING:
        texts: list[bytes] = tensor.numpy().ravel().tolist()
        for text in texts:
            yield len(text).to_bytes(8, "little") + text
    elif isinstance(tensor, ExternalTensor):
        with open(tensor.path, "rb") as file:
            file.seek(tensor.offset or 0)
            left = tensor.nbytes
            while left > 0 and (piece := file.read(min(CHUNK, left))):
                left -= len(piece)
                yield piece
    elif isinstance(tensor, MappedTensor):
        yield from tensor.chunks()
    else:
        yield tensor.tobytes()
