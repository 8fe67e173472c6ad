"""More samples from those there are: weighted means of two, which the teacher answers anew.

What a net says between its samples is knowledge that labels do not have (mixup, Zhang et al. 2018,
as a source of questions to a teacher: Beyer et al. 2022). Nothing is taken for granted of what a
sample shows, only that its inputs are numbers and not codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim.runtime.samples import Feed, Samples


class Mixed(Samples):
    """Samples, and after them as many means of two as are asked for, the same at each reading.

    Each is u a + (1 - u) b with u uniform between 0 and 1, of two samples at the indices `among`.
    """

    def __init__(self, base: Samples, among: Sequence[int], count: int, seed: int) -> None:
        self._base = base
        rng = np.random.default_rng(seed)
        pairs = rng.integers(len(among), size=(count, 2))
        self._pairs = np.asarray(among, np.int64)[pairs] if count else pairs
        self._shares = rng.uniform(size=count)

    def __len__(self) -> int:
        return len(self._base) + len(self._pairs)

    def __getitem__(self, index: int) -> Feed:
        if index < len(self._base):
            return self._base[index]
        at = index - len(self._base)
        one, two = (self._base[int(i)] for i in self._pairs[at])
        share = self._shares[at]
        if not _alike(one, two):
            return one
        return {n: (share * one[n] + (1 - share) * two[n]).astype(one[n].dtype) for n in one}


def mixable(samples: Samples) -> bool:
    """Whether all inputs are floats, of the same shape in the first samples."""
    return all(_alike(samples[0], samples[i]) for i in range(min(len(samples), 8)))


def _alike(one: Feed, two: Feed) -> bool:
    return all(one[n].dtype.kind == "f" and one[n].shape == two[n].shape for n in one)
