"""What the program is fed with: feeds, and samples that can be read more than once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]
"""Input name -> array, as one run of the model takes it (batch axis included)."""


class Samples(ABC):
    """A sized sequence of feeds that streams: it may be larger than memory and is read anew
    at each iteration, always in the same order."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of feeds."""

    @abstractmethod
    def __getitem__(self, index: int) -> Feed:
        """One feed; loads no other."""

    @property
    def labels(self) -> Sequence[Array] | None:
        """One label array per feed, or None when there are none."""
        return None

    def __iter__(self) -> Iterator[Feed]:
        return (self[i] for i in range(len(self)))

    def take(self, indices: Sequence[int]) -> Samples:
        """The feeds at these indices, with their labels."""
        return Subset(self, indices)


class FeedList(Samples):
    """Feeds that are in memory already."""

    def __init__(self, feeds: Sequence[Feed], labels: Sequence[Array] | None = None) -> None:
        self._feeds = list(feeds)
        self._labels = labels

    def __len__(self) -> int:
        return len(self._feeds)

    def __getitem__(self, index: int) -> Feed:
        return self._feeds[index]

    @property
    def labels(self) -> Sequence[Array] | None:
        return self._labels


class Subset(Samples):
    """Some of the feeds of other samples."""

    def __init__(self, base: Samples, indices: Sequence[int]) -> None:
        self._base = base
        self._indices = [int(i) for i in np.asarray(indices, dtype=np.int64)]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Feed:
        return self._base[self._indices[index]]

    @property
    def labels(self) -> Sequence[Array] | None:
        labels = self._base.labels
        return None if labels is None else [labels[i] for i in self._indices]
