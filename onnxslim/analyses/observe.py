"""What is kept of each watched tensor while samples stream by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxslim.analyses.builder import MomentsBuilder
from onnxslim.analyses.columns import Tap, columns, feature_count, row_count
from onnxslim.analyses.nonfinite import is_finite
from onnxslim.analyses.plan import Watch
from onnxslim.analyses.shorten import Shortener
from onnxslim.analyses.spill import Spill
from onnxslim.analyses.tensor_stats import TensorStats, tensor_stats
from onnxslim.ir import Array
from onnxslim.runtime.samples import Feed

MASKS = ("attention_mask", "input_mask", "padding_mask", "token_mask")
"""Graph inputs [B, S] that are 0 where a text is padded."""


_ENOUGH = 8192  # rows, whatever the number of features


@dataclass(frozen=True)
class Sampling:
    """Which rows of a tap are looked at: drawn anew for each sample, and the same ones whenever
    sample, seed and number of rows agree.

    At most `positions` per entry of the batch axis, and about `per_feature` times as many in total
    as rows are long (or 8192): then a covariance is known well in all directions. Rows
    without a window that are more than `longest` times as long as the others are shortened to that,
    if it is given.
    """

    positions: int = 256
    per_feature: int = 16
    seed: int = 0
    longest: float | None = None

    def limit(self, features: int, entries: int, samples: int) -> int:
        """The number of rows that one of so many samples may give."""
        quota = -(-max(self.per_feature * features, _ENOUGH) // max(samples, 1))
        return max(1, min(self.positions * max(entries, 1), quota))

    def rows(self, candidates: Array | int, limit: int, index: int) -> Array | None:
        """Row numbers, sorted; None for all of `candidates` rows (a count, or the rows allowed)."""
        count = candidates if isinstance(candidates, int) else len(candidates)
        if count <= limit:
            return None if isinstance(candidates, int) else candidates
        chosen = np.random.default_rng([self.seed, index]).choice(count, limit, replace=False)
        chosen.sort()
        return chosen if isinstance(candidates, int) else candidates[chosen]


def padding_mask(feed: Feed) -> Array | None:
    """The mask among the inputs of a sample, as booleans; None without one."""
    name = next((n for n in MASKS if n in feed and feed[n].ndim == 2), None)
    return None if name is None else np.asarray(feed[name]) != 0


def entries_of(feed: Feed) -> int:
    """How many entries the batch axis of a sample has, taking axis 0 of its first input for it."""
    first = next(iter(feed.values()), None)
    return 1 if first is None or first.ndim == 0 else int(first.shape[0])


@dataclass(frozen=True)
class Unusable:
    """Why statistics of a tensor end, and at which sample."""

    reason: str
    sample: int
    nonfinite: bool = False


class Observer:
    """Adds up what a watch asks for. Channels lie on `channel_axis`, 1 or -1; where that is None,
    on axis 1 of four or more dimensions, else on the last. `samples` is how many will come. Sums of
    rows lie in the `spill` where there is one."""

    def __init__(
        self,
        watch: Watch,
        channel_axis: int | None,
        sampling: Sampling,
        samples: int,
        spill: Spill | None,
    ) -> None:
        self.watch = watch
        self.stats: TensorStats | None = None
        self._channel_axis = channel_axis
        self._sampling = sampling
        self._samples = samples
        self._spill = spill
        self._builders: dict[Tap, MomentsBuilder] = {}
        self._shorteners: dict[Tap, Shortener] = {}

    def add(self, x: Array, feed: Feed, index: int) -> Unusable | None:
        """Take in the tensor as it was for one sample; returns why it cannot be used, if so."""
        if x.dtype.kind != "f" and not x.dtype.name.startswith(("bfloat", "float8")):
            return Unusable(f"it holds {x.dtype.name}, not floats", index)
        values = x if x.dtype.kind == "f" else np.asarray(x, np.float32)
        if not is_finite(values):
            return Unusable(f"it holds NaN or infinity in sample {index}", index, nonfinite=True)
        kept = unpadded(values, padding_mask(feed))
        if self.watch.stats and values.size:
            seen = values if kept is None else values.reshape(-1, values.shape[-1])[kept]
            self._add_stats(seen)
        for tap in self.watch.taps:
            usable = kept if tap.window is None and tap.axis == -1 else None
            if not self._add_rows(values, tap, usable, entries_of(feed), index):
                return Unusable("its number of features varies between samples", index)
        return None

    def moments(self) -> Mapping[Tap, MomentsBuilder]:
        """Of the rows so far; taps that had none are left out."""
        return {tap: made for tap, made in self._builders.items() if made.result().n}

    def _add_stats(self, x: Array) -> None:
        if x.size:
            new = tensor_stats(x, channel_axis(x.ndim, self._channel_axis))
            self.stats = new if self.stats is None else self.stats.merge(new)

    def _add_rows(self, x: Array, tap: Tap, kept: Array | None, entries: int, index: int) -> bool:
        features = feature_count(tap, x.shape)
        builder = self._builder(tap, features)
        if builder.features != features:
            return False
        candidates = row_count(tap, x.shape) if kept is None else kept
        limit = self._sampling.limit(features, entries, self._samples)
        chosen = self._sampling.rows(candidates, limit, index)
        if row_count(tap, x.shape):
            builder.add(self._shortened(tap, columns(x, tap, chosen)))
        return True

    def _shortened(self, tap: Tap, rows: Array) -> Array:
        if self._sampling.longest is None or tap.window is not None:
            return rows
        if tap not in self._shorteners:
            self._shorteners[tap] = Shortener(self._sampling.longest)
        return self._shorteners[tap](rows)

    def _builder(self, tap: Tap, features: int) -> MomentsBuilder:
        if tap not in self._builders:
            self._builders[tap] = MomentsBuilder(tap.groups, features, self._spill)
        return self._builders[tap]


def channel_axis(rank: int, around: int | None) -> int:
    """1 or -1: where a tensor has its channels. `around`: where the operators around it do."""
    first = rank > 3 if around is None else around == 1
    return 1 if first and rank > 2 else -1


def unpadded(x: Array, mask: Array | None) -> Array | None:
    """The rows (of features on the last axis) that are not padding; None when all are kept."""
    if mask is None or x.ndim < 2:
        return None
    if x.shape[:-1] != mask.shape and (x.ndim != 2 or x.shape[0] != mask.size):
        return None
    return np.flatnonzero(mask)
