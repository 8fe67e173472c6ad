"""Arrays of an `.npz` file read where they lie, row by row, without loading the file."""

from __future__ import annotations

import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from onnxslim.errors import DataError
from onnxslim.runtime.samples import Array

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # zip: signature, ..., length of name, of extra field


class MappedNpz(Mapping[str, Array]):
    """The arrays of an `.npz`, memory-mapped; compressed ones are unpacked to files without a name.

    Raises DataError when the file is missing, no `.npz`, damaged, or holds Python objects.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._arrays: dict[str, Array] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if member.filename.endswith(".npy"):
                        name = member.filename[: -len(".npy")]
                        self._arrays[name] = self._mapped(archive, member)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, EOFError, struct.error, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: not a readable .npz file: {error}") from error

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def _mapped(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
        if member.compress_type == zipfile.ZIP_STORED:
            with self._path.open("rb") as file:
                return _map(file, _data_offset(self._path, member))
        with archive.open(member) as source, tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(source, unpacked, 1 << 20)
            unpacked.flush()
            return _map(unpacked, 0)


def _data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member start: after its local header, which has own lengths."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        _, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return int(member.header_offset + _LOCAL_HEADER.size + name + extra)


def _map(file: IO[bytes], offset: int) -> Array:
    """The array whose `.npy` header starts at an offset of a file, which may then be closed."""
    file.seek(offset)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    start = file.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects; save plain arrays")
    if 0 in shape:
        return np.empty(shape, dtype)
    mapped: Array = np.memmap(file, dtype, "r", start, shape, "F" if fortran else "C")
    return mapped
