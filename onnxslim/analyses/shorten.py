"""Rows that are far longer than the others count for less: a few would rule a covariance alone.

In a language model some tokens, the first of a text above all, have hidden values a thousand times
as large as those of others (massive activations, Sun et al. 2024, arXiv 2402.17762). The
normalization that follows divides by the length of the row, so that an error there does no more
harm than a like share of another row. Winsorized by length, such a row keeps its direction.
"""

from __future__ import annotations

import numpy as np

from onnxslim.ir import Array

_ROUNDS = 50  # the level falls towards its fixed point
_NEAR = 1e-3


class Shortener:
    """Shortens rows to `times` the root mean square length of those that came so far, the shortened
    ones counted as they are then; per group."""

    def __init__(self, times: float) -> None:
        if not times > 1:
            raise ValueError(f"times={times:g} given, expected more than 1")
        self._limit = times**2
        self._count = 0
        self._power: Array = np.zeros(())  # then [G]

    def __call__(self, rows: Array) -> Array:
        """Rows [G, n, d] -> the same array, or one with some rows shortened in the same dtype."""
        powers: Array = np.square(rows, dtype=np.float64).sum(axis=2)  # [G, n]
        if not powers.size:
            return rows
        self._count += powers.shape[1]
        level = self._level(powers)
        self._power = self._power + np.minimum(powers, self._limit * level).sum(axis=1)
        most = self._limit * level
        if not (powers > most).any():
            return rows
        scale = np.sqrt(most / np.maximum(powers, most))
        shortened: Array = rows * np.where(powers > most, scale, 1.0)[:, :, None].astype(rows.dtype)
        return shortened

    def _level(self, powers: Array) -> Array:
        """The mean power m = mean(min(p, limit m)), [G, 1]: the greatest there is."""
        level = (self._power + powers.sum(axis=1)) / self._count
        for _ in range(_ROUNDS):
            kept = np.minimum(powers, self._limit * level[:, None]).sum(axis=1)
            now = (self._power + kept) / self._count
            done = bool((now >= level * (1 - _NEAR)).all())
            level = now
            if done:
                break
        found: Array = level[:, None]
        return found
