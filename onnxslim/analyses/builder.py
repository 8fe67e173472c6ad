"""Moments of rows that come one sample at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxslim.analyses.moments import Moments
from onnxslim.analyses.spill import Opener, Spill
from onnxslim.ir import Array

_CHUNK_BYTES = 8 << 20
_CHUNK_ROWS = 4096
_BLOCK = 512  # features whose products with the others are made at a time


class MomentsBuilder:
    """Adds up rows. Gram matrices are float32 within a chunk of rows around the chunk's own mean,
    and float64 between chunks; of wide ones the upper blocks alone are added up.

    With a `spill` the rows that wait and the sums lie in its file. Memory: `builder_bytes`
    without, and `adding_bytes` for a moment.
    """

    def __init__(self, groups: int, features: int, spill: Spill | None = None) -> None:
        self.features = features
        self._spill = spill
        self._rows = chunk_rows(groups, features, spilled=spill is not None)
        self._n, self._filled = 0, 0
        self._means: list[tuple[float, Array]] = []  # w and v [G, d] of w v v^T yet to be added
        self._mean: Array = np.zeros((groups, features))
        self._scatter = self._zeros((groups, features, features), np.float64)
        self._pending: Opener | None = None

    def add(self, rows: Array) -> None:
        """Take in rows [G, n, d] of any float type."""
        at = 0
        while at < rows.shape[1]:
            pending = self._room()
            step = min(self._rows - self._filled, int(rows.shape[1]) - at)
            pending[:, self._filled : self._filled + step] = rows[:, at : at + step]
            self._filled, at = self._filled + step, at + step
            if self._filled == self._rows:
                self._flush()

    def result(self) -> Moments:
        """The moments of all rows so far, until more are added; what is spilled is mapped anew."""
        if self._filled:
            self._flush()
        if self._means:
            weights = np.array([weight for weight, _ in self._means])[:, None]
            vectors = np.stack([vector for _, vector in self._means], axis=1)
            _add_products(self._scatter(), weights * vectors, vectors)
            mirror(self._scatter())
        self._pending, self._means = None, []
        return Moments(self._n, self._mean, self._scatter())

    def _room(self) -> Array:
        if self._pending is None:
            groups = len(self._mean)
            self._pending = self._zeros((groups, self._rows, self.features), np.float32)
        return self._pending()

    def _zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Opener:
        if self._spill is not None:
            return self._spill.zeros(shape, dtype)
        held: Array = np.zeros(shape, dtype)
        return lambda: held

    def _flush(self) -> None:
        """Merge the rows that wait (Chan, Golub and LeVeque 1979, eq. 2.1)."""
        rows, count = self._room()[:, : self._filled], self._filled
        mean: Array = rows.mean(axis=1, dtype=np.float64)
        rows -= mean[:, None, :].astype(np.float32)
        rest: Array = rows.mean(axis=1, dtype=np.float64)  # what rounding the mean left over
        n, delta = self._n + count, mean - self._mean
        _add_products(self._scatter(), rows, rows)
        self._means += [(self._n * count / n, delta), (-count, rest)]
        self._mean = self._mean + count / n * delta
        self._n, self._filled = n, 0


def _add_products(into: Array, rows: Array, others: Array) -> None:
    """A += X^T Y, from the diagonal blocks on to the right. [G, d, d], both [G, n, d].

    What is too large becomes infinite, and who reads it leaves such a layer alone.
    """
    for at in range(0, int(rows.shape[2]), _BLOCK):
        some = slice(at, at + _BLOCK)
        with np.errstate(over="ignore", invalid="ignore"):
            into[:, some, at:] += np.matmul(np.swapaxes(rows[:, :, some], 1, 2), others[:, :, at:])


def mirror(scatter: Array) -> None:
    """Copy what lies right of the diagonals of [G, d, d] to below them, in place."""
    size = int(scatter.shape[1])
    for at in range(0, size, _BLOCK):
        end = min(at + _BLOCK, size)
        scatter[:, end:, at:end] = np.swapaxes(scatter[:, at:end, end:], 1, 2)
        own = scatter[:, at:end, at:end]
        low, high = np.tril_indices(end - at, -1)
        own[:, low, high] = own[:, high, low]


def chunk_rows(groups: int, features: int, *, spilled: bool = False) -> int:
    """How many rows a builder gathers before it multiplies: more where they wait in a file, as
    the sums then come from there too."""
    fit = _CHUNK_BYTES // (4 * groups * features)
    return max(1, min(_CHUNK_ROWS, max(fit, features // 2) if spilled else fit))


def builder_bytes(groups: int, features: int) -> int:
    """What a builder holds."""
    return groups * features * (8 * features + 4 * chunk_rows(groups, features))


def adding_bytes(groups: int, features: int) -> int:
    """What adding a chunk to a builder needs for a moment: a block of products."""
    return groups * features * 8 * min(features, _BLOCK)
