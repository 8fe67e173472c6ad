"""The range of a tensor from its histogram: all of it, a percentile, or the least squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.quant.qparams import asymmetric

Method = Literal["minmax", "percentile", "mse"]


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


def find_range(seen: Observed, method: Method, percentile: float = 99.99) -> tuple[float, float]:
    """The lowest and highest real number that get an integer of their own."""
    if method == "minmax" or seen.max <= seen.min:
        return seen.min, seen.max
    if method == "percentile":
        return _percentile(seen, percentile)
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


_SHRINK = np.concatenate([np.arange(1.0, 0.5, -0.025), np.geomspace(0.5, 0.05, 12)])


def least_squared_error(seen: Observed) -> tuple[float, float]:
    """min over ranges of sum p(x) (x - q(x))^2, each end searched in turn from min and max.

    Cost: two sweeps over a grid of 32 factors per end, each on the histogram's bins.
    """
    x, weight = seen.centers, seen.counts.astype(np.float64)
    keep = weight > 0
    x, weight = x[keep], weight[keep]
    low, high = min(seen.min, 0.0), max(seen.max, 0.0)
    best = low, high
    for _ in range(2):
        highs = [(best[0], high * f) for f in _SHRINK] if high > 0 else [best]
        best = min([best, *highs], key=lambda r: _error(x, weight, *r))
        lows = [(low * f, best[1]) for f in _SHRINK] if low < 0 else [best]
        best = min([best, *lows], key=lambda r: _error(x, weight, *r))
    return best


def _error(x: Array, weight: Array, low: float, high: float) -> float:
    """Squared error of the bins: rounding noise inside, and what is clipped outside."""
    params = asymmetric(low, high)
    inside = np.clip(x, params.low, params.high)
    clipped = float((weight * (x - inside) ** 2).sum())
    return clipped + float(weight[inside == x].sum()) * params.scale**2 / 12
