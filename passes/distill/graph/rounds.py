"""Which samples come next: all in turn, in another order in every round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Rounds:
    """Endless rounds of indices; `left` is what remains of this one."""

    def __init__(self, indices: Sequence[int], rng: np.random.Generator) -> None:
        self._indices = list(indices)
        self._rng = rng
        self.left: list[int] = []

    def take(self, count: int) -> list[int]:
        """The next ones, no more than there are."""
        count = min(count, len(self._indices))
        while len(self.left) < count:
            order = self._rng.permutation(len(self._indices))
            self.left += [self._indices[i] for i in order]
        taken, self.left = self.left[:count], self.left[count:]
        return taken
