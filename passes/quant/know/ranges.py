"""The range of a tensor from its histogram: all of it, a percentile, the least squared error, of
its own or of what is made of it, or the least loss of information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.quant.know.entropy import LEVELS, entropy_threshold, magnitudes
from onnxslim.passes.quant.qparams import QParams, asymmetric

Method = Literal["minmax", "percentile", "mse", "entropy", "output"]


@dataclass(frozen=True)
class Observed:
    """What was seen of a tensor: its extremes and `counts` in equal bins from `low` to `high`."""

    min: float
    max: float
    counts: Array  # [bins]
    low: float
    high: float

    @property
    def centers(self) -> Array:
        """The middle of each bin, [bins]."""
        step = (self.high - self.low) / len(self.counts)
        return self.low + step * (np.arange(len(self.counts)) + 0.5)

    def squared_error(self, params: QParams) -> float:
        """Sum over the numbers of (x - q(x))^2, each taken for the middle of its bin.

        Where a step of q is not wider than two bins, its rounding noise is step^2 / 12 inside.
        """
        seen = self.counts > 0
        x, p = self.centers[seen], self.counts[seen]
        if params.scale > 2 * (self.high - self.low) / len(self.counts):
            return float((p * (x - params.fake(x)) ** 2).sum())
        clipped = x - np.clip(x, params.low, params.high)
        return float((p * clipped**2).sum() + p[clipped == 0].sum() * params.scale**2 / 12)


def find_range(seen: Observed, method: Method, percentile: float = 99.99) -> tuple[float, float]:
    """The lowest and highest real number that get an integer of their own."""
    if method == "minmax" or seen.max <= seen.min:
        return seen.min, seen.max
    if method == "percentile":
        return _percentile(seen, percentile)
    if method == "entropy":
        return _least_divergence(seen)
    return least_squared_error(seen)


def _percentile(seen: Observed, percentile: float) -> tuple[float, float]:
    """The bounds that keep `percentile` per cent of the numbers, half of the rest on each side."""
    share = np.cumsum(seen.counts) / max(seen.counts.sum(), 1)
    tail = (1 - percentile / 100) / 2
    step = (seen.high - seen.low) / len(seen.counts)
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail, side="left"))
    low, high = seen.low + first * step, seen.low + (last + 1) * step
    return max(low, seen.min), min(high, seen.max)


def _least_divergence(seen: Observed) -> tuple[float, float]:
    """The same threshold on both sides, as far as the numbers reach."""
    step = (seen.high - seen.low) / len(seen.counts)
    levels = LEVELS if seen.min < 0 < seen.max else 2 * LEVELS
    threshold = step * entropy_threshold(magnitudes(seen.counts, seen.low, step), levels)
    return max(seen.min, -threshold), min(seen.max, threshold)


_SHRINK = np.concatenate([np.arange(1.0, 0.5, -0.025), np.geomspace(0.5, 0.05, 12)])


def least_squared_error(seen: Observed) -> tuple[float, float]:
    """min over ranges of sum p(x) (x - q(x))^2: both ends searched together, then each in turn.

    Cost: five sweeps over a grid of 32 factors, each on the histogram's bins.
    """
    low, high = min(seen.min, 0.0), max(seen.max, 0.0)

    def error(bounds: tuple[float, float]) -> float:
        return seen.squared_error(asymmetric(*bounds))

    best = min(((low * f, high * f) for f in _SHRINK), key=error)
    for _ in range(2):
        best = min([best, *((best[0], high * f) for f in _SHRINK)], key=error)
        best = min([best, *((low * f, best[1]) for f in _SHRINK)], key=error)
    return best
