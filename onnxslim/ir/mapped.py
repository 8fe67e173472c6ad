"""Tensors whose bytes stay in the model file that they came with."""

from __future__ import annotations

import mmap
import os
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from onnx_ir import PackedTensor

from onnxslim.errors import ModelError
from onnxslim.ir.types import LazyTensor, Shape, Tensor, TensorProtocol

CHUNK = 1 << 20
_sources: weakref.WeakSet[Source] = weakref.WeakSet()


def forget_mapped() -> None:
    """Give the memory of all pages of model files back; they are read again where needed."""
    for source in list(_sources):
        source.forget()


class Source:
    """Where the bytes of a model are: a file, open and mapped, or memory.

    The map stays valid when another file is renamed over the path. A file that is written in
    place meanwhile is refused when it is read again.
    """

    def __init__(self, content: Path | bytes) -> None:
        """Open it; raises OSError."""
        self.name = "the given bytes" if isinstance(content, bytes) else str(content)
        self._handle: int | None = None
        self._map: mmap.mmap | None = None
        if isinstance(content, bytes):
            self.view = memoryview(content)
        elif not self._opened(content):
            self.view = memoryview(content.read_bytes())

    def _opened(self, path: Path) -> bool:
        """Whether the file could be mapped: a regular one, not empty, where the system can."""
        if os.name != "posix" or not path.is_file():  # Windows cannot replace a mapped file
            return False
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            os.close(handle)
            return False
        self._handle = handle
        weakref.finalize(self, os.close, handle)
        self.view = memoryview(self._map)
        self._state = self._seen()
        _sources.add(self)
        return True

    def _seen(self) -> tuple[int, int]:
        info = os.fstat(self._handle or 0)
        return info.st_size, info.st_mtime_ns

    def check(self) -> None:
        """Raises ModelError: the file is not what it was when it was opened."""
        if self._handle is not None and self._seen() != self._state:
            raise ModelError(
                f"{self.name}: was changed while it was in use; "
                "load it again, and replace files by renaming new ones over them"
            )

    @property
    def path(self) -> str | None:
        """The path at which the file still lies; None where another one or none is there now."""
        if self._handle is None:
            return None
        self.check()
        try:
            same = os.path.samestat(os.stat(self.name), os.fstat(self._handle))
        except OSError:
            return None
        return self.name if same else None

    def forget(self) -> None:
        """Give the memory of the mapped pages back; they are read again where they are needed."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def chunks(self, offset: int, length: int) -> Iterator[memoryview]:
        """The bytes piece by piece, in little memory."""
        self.check()
        for at in range(offset, offset + length, CHUNK):
            count = min(CHUNK, offset + length - at)
            if self._handle is None:
                yield self.view[at : at + count]
            else:
                yield self._read(at, count)

    def _read(self, at: int, count: int) -> memoryview:
        piece = os.pread(self._handle or 0, count, at)
        if len(piece) < count:
            raise ModelError(f"{self.name}: was cut while it was in use; load it again")
        return memoryview(piece)

    def copy(self, offset: int, length: int, file: BinaryIO) -> None:
        """Append the bytes to a file; within the kernel where the system can."""
        self.check()
        done = self._copied_by_kernel(offset, length, file)
        for chunk in self.chunks(offset + done, length - done):
            file.write(chunk)

    def _copied_by_kernel(self, offset: int, length: int, file: BinaryIO) -> int:
        if self._handle is None or not hasattr(os, "copy_file_range") or not _is_regular(file):
            return 0
        file.flush()
        begin, done = file.tell(), 0
        try:
            while done < length and (
                count := os.copy_file_range(
                    self._handle, file.fileno(), length - done, offset + done, begin + done
                )
            ):
                done += count
        except OSError:
            pass  # across file systems, or not supported: an error that is real comes back below
        file.seek(begin + done)
        return done


def _is_regular(file: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except OSError:  # not a file of the system
        return False


class MappedTensor(LazyTensor):
    """An immutable tensor whose bytes lie in a `Source`; nothing is copied until it has to be.

    Its elements are read-only; types below a byte are unpacked.
    """

    __slots__ = ("_offset", "_source")

    def __init__(self, source: Source, offset: int, like: TensorProtocol) -> None:
        """The tensor of that name, type and shape that begins there; its length was checked."""
        super().__init__(
            self._elements,
            like.dtype,
            Shape([int(size) for size in like.shape.numpy()], frozen=True),
            name=like.name,
            doc_string=like.doc_string,
            metadata_props=dict(like.metadata_props),
        )
        self._source, self._offset = source, offset

    def _elements(self) -> TensorProtocol:
        data = self.bytes()
        if self.dtype.bitwidth < 8:
            return PackedTensor(np.frombuffer(data, np.uint8), self.dtype, shape=self.shape)
        little = cast("Any", self.dtype.numpy()).newbyteorder("<")
        elements = np.frombuffer(data, little).reshape(self.shape.numpy())
        return Tensor(elements, dtype=self.dtype, shape=self.shape)

    def bytes(self) -> memoryview:
        """The bytes as ONNX stores them."""
        self._source.check()
        return self._source.view[self._offset : self._offset + self.nbytes]

    @property
    def place(self) -> tuple[str, int] | None:
        """The path and the offset at which other programs find the bytes, if they do."""
        path = self._source.path
        return None if path is None else (path, self._offset)

    def tofile(self, file: BinaryIO) -> None:
        """Append the bytes to a file."""
        self._source.copy(self._offset, self.nbytes, file)

    def chunks(self) -> Iterator[memoryview]:
        """The bytes piece by piece."""
        return self._source.chunks(self._offset, self.nbytes)
