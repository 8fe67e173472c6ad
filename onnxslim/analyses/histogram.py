"""A histogram that grows: bins of a power of two, zero an edge, so that merging is exact.

The width is the smallest power of two with which the range of the values and zero fits into 2048
bins. It only depends on that range; data may therefore come in any order and in any shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, frexp, ldexp

import numpy as np

from onnxslim.ir import Array

BINS = 2048
_SMALLEST = -115  # exponent; below it float32 has lost too much precision to be sorted into bins
_CHUNK = 1 << 16  # numbers at a time, so that what is made of them stays in the cache


@dataclass(frozen=True)
class Histogram:
    """counts[i] values lie in [(first + i) * width, (first + i + 1) * width), width 2^exponent.

    At most 2048 bins; bin 0 starts at zero and is always covered.
    """

    exponent: int
    first: int
    counts: Array  # int64

    @property
    def width(self) -> float:
        """The width of each bin."""
        return ldexp(1.0, self.exponent)

    @property
    def low(self) -> float:
        """The lower edge of the first bin."""
        return self.first * self.width

    @property
    def high(self) -> float:
        """The upper edge of the last bin."""
        return (self.first + len(self.counts)) * self.width

    @property
    def edges(self) -> Array:
        """All edges, float64, one more than bins."""
        return (self.first + np.arange(len(self.counts) + 1)) * self.width

    @property
    def centers(self) -> Array:
        """The middles of the bins, float64."""
        return (self.first + 0.5 + np.arange(len(self.counts))) * self.width

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of the values of both: exactly that of all values at once."""
        low, high = self._extent()
        other_low, other_high = other._extent()
        exponent = _exponent(min(low, other_low), max(high, other_high))
        exponent = max(exponent, self.exponent, other.exponent)
        mine, others = self._widened(exponent), other._widened(exponent)
        first = min(mine.first, others.first)
        end = max(h.first + len(h.counts) for h in (mine, others))
        counts = np.zeros(end - first, np.int64)
        for part in (mine, others):
            at = part.first - first
            counts[at : at + len(part.counts)] += part.counts
        return Histogram(exponent, first, counts)

    def _extent(self) -> tuple[float, float]:
        """Lowest value and highest that the outermost bins stand for."""
        return self.low, (self.first + len(self.counts) - 1) * self.width

    def _widened(self, exponent: int) -> Histogram:
        shift = min(exponent - self.exponent, 62)
        if shift == 0:
            return self
        index = (self.first + np.arange(len(self.counts), dtype=np.int64)) >> shift
        first = int(index[0])
        counts = np.zeros(int(index[-1]) - first + 1, np.int64)
        np.add.at(counts, index - first, self.counts)
        return Histogram(exponent, first, counts)


def histogram_of(values: Array, low: float, high: float) -> Histogram:
    """The histogram of finite float values whose minimum and maximum are known."""
    low, high = min(low, 0.0), max(high, 0.0)
    exponent = _exponent(low, high)
    first = floor(ldexp(low, -exponent))
    counts = np.zeros(floor(ldexp(high, -exponent)) - first + 1, np.int64)
    flat, scale = values.reshape(-1), ldexp(1.0, -exponent)
    bins = _truncated if low == 0 else _floored
    for at in range(0, flat.size, _CHUNK):
        index = bins(flat[at : at + _CHUNK], scale)
        index = index if first == 0 else index - first
        counts += np.bincount(index, minlength=len(counts))
    return Histogram(exponent, first, counts)


def _truncated(values: Array, scale: float) -> Array:
    """Whole bins below values that are not negative; a power of two scales them exactly."""
    scaled: Array = np.multiply(values, scale, dtype=np.result_type(values, np.float32))
    return scaled.astype(np.int64)


def _floored(values: Array, scale: float) -> Array:
    """Whole bins below values, in float64: in float32 a tiny negative value would become a zero,
    in the bin above."""
    scaled: Array = np.multiply(values, scale, dtype=np.float64)
    return np.floor(scaled, out=scaled).astype(np.int64)


def _exponent(low: float, high: float) -> int:
    """Of the smallest width with which [low, high], which holds zero, takes at most BINS bins."""
    span = max(high, -low)
    exponent = max(frexp(span)[1] - 12, _SMALLEST) if span else _SMALLEST
    while floor(ldexp(high, -exponent)) - floor(ldexp(low, -exponent)) + 1 > BINS:
        exponent += 1  # at most twice
    return exponent
