"""Arrays that lie in a temporary file and are in memory only while they are used."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from math import prod
from threading import Lock

import numpy as np
import numpy.typing as npt

from onnxslim.ir import Array

Opener = Callable[[], Array]
"""Gives an array, as it was left when it was given before."""


class Spill:
    """One file for many arrays; it goes when neither this object nor an array is used any more."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="onnxslim-")  # noqa: SIM115  open while in use
        self._end, self._lock = 0, Lock()

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Opener:
        """A new array of zeros. To open it maps the file; what is written stays.

        Raises:
            OSError: there is no room for it in the temporary folder.
        """
        size = prod(shape) * np.dtype(dtype).itemsize
        with self._lock:
            at, step = self._end, mmap.ALLOCATIONGRANULARITY
            self._end = at + -(-size // step) * step
            self._grow(at)

        def opened() -> Array:
            mapped = mmap.mmap(self._file.fileno(), size, offset=at)
            return np.frombuffer(mapped, dtype).reshape(shape)

        return opened

    def _grow(self, at: int) -> None:
        """Room is taken at once where the system can: a full disk must not end the process."""
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), at, self._end - at)
            else:
                os.truncate(self._file.fileno(), self._end)
        except OSError as error:
            where = tempfile.gettempdir()
            more = (
                f"statistics need {self._end >> 20} MB or more in '{where}'; set TMPDIR elsewhere"
            )
            raise OSError(error.errno, f"{error.strerror}: {more}") from error
