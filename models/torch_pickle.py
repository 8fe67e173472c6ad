"""State dicts out of PyTorch's checkpoint format of before 1.6, without PyTorch.

Such a file is four pickles (magic number, protocol, machine, state dict), the list of storage
keys, then each storage as an int64 length and raw little-endian values. The unpickler knows
only what a state dict is made of and refuses everything else.
"""

from __future__ import annotations

import collections
import io
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MAGIC = 0x1950A86A20F9469CFC6C
DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor whose storage has not been read yet; all counts are in elements."""

    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, storage: Array) -> Array:
        steps = tuple(step * storage.itemsize for step in self.strides)
        start = storage[self.offset :]
        return np.lib.stride_tricks.as_strided(start, self.shape, steps).copy()


@dataclass(frozen=True)
class StorageType:
    """Stands for `torch.FloatStorage` and alike."""

    dtype: np.dtype[Any]


class StateDictUnpickler(pickle.Unpickler):
    """Builds LazyTensor objects; notes each storage's element type in `dtypes`."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.dtypes: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _lazy_tensor
        if module == "torch" and name in DTYPES:
            return StorageType(DTYPES[name])
        raise pickle.UnpicklingError(f"a state dict has no business with {module}.{name}")

    def persistent_load(self, pid: Any) -> str:
        _, storage_type, key, _, _, _ = pid
        self.dtypes[key] = storage_type.dtype
        return str(key)


def _lazy_tensor(
    key: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> LazyTensor:
    return LazyTensor(key, offset, shape, strides)


def load_state_dict(content: bytes) -> dict[str, Array]:
    """The tensors of a checkpoint by name; raises UnpicklingError on anything else."""
    stream = io.BytesIO(content)
    if StateDictUnpickler(stream).load() != MAGIC:
        raise pickle.UnpicklingError("not a PyTorch checkpoint of the format before 1.6")
    for _ in ("protocol", "machine"):
        StateDictUnpickler(stream).load()
    unpickler = StateDictUnpickler(stream)
    lazy: dict[str, LazyTensor] = unpickler.load()
    keys: list[str] = StateDictUnpickler(stream).load()
    storages = {key: _read_storage(stream, unpickler.dtypes[key]) for key in keys}
    return {name: tensor.view(storages[tensor.key]) for name, tensor in lazy.items()}


def _read_storage(stream: io.BytesIO, dtype: np.dtype[Any]) -> Array:
    length = int.from_bytes(stream.read(8), "little")
    return np.frombuffer(stream.read(length * dtype.itemsize), dtype)
