"""Which tensors are watched in the same run, so that a run stays within a budget of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from onnxslim.analyses.builder import adding_bytes, builder_bytes
from onnxslim.analyses.columns import Tap, feature_count

BUDGET = 256 << 20
"""Bytes that one run may take beyond what the model itself needs: sums, watched tensors, rows.
A single tensor that needs more is watched alone."""

STACK = 32  # samples in one call; more bring no speed
_COPIES = 3  # of a tensor with `stats`: as returned, as float32 without padding, sorted into bins
_KEPT = 1 << 16  # of a tensor, beside the sums over its rows


@dataclass(frozen=True)
class Watch:
    """One tensor to look at: its range and distribution if `stats`, and the rows of its taps."""

    tensor: str
    stats: bool
    taps: tuple[Tap, ...] = ()


@dataclass(frozen=True)
class Batch:
    """What is watched in one run over the samples, and how many samples a call may hold."""

    watches: tuple[Watch, ...]
    stack: int


def plan(
    watches: Sequence[Watch],
    shapes: Mapping[str, tuple[int, ...]],
    budget: int = BUDGET,
    *,
    spilled: bool = False,
) -> list[Batch]:
    """Split into as few runs as the budget allows, in the order given.

    `shapes` are those of one sample. A tensor without one is watched alone, sample by sample.
    With `spilled` sums take no memory.
    """
    batches: list[Batch] = []
    current = _Load(spilled)
    for watch in watches:
        shape = shapes.get(watch.tensor)
        if shape is None:
            batches.append(Batch((watch,), 1))
            continue
        more = current.plus(watch, shape)
        if current.watches and more.bytes > budget:
            batches.append(current.batch(budget))
            more = _Load(spilled).plus(watch, shape)
        current = more
    return [*batches, current.batch(budget)] if current.watches else batches


def sum_bytes(watch: Watch, shape: tuple[int, ...]) -> int:
    """The bytes of what is added up over all samples."""
    features = [(tap.groups, feature_count(tap, shape)) for tap in watch.taps]
    return sum(builder_bytes(groups, d) for groups, d in features) + _KEPT


@dataclass(frozen=True)
class _Load:
    """The bytes that some watches need: sums, the work on one of them, and per sample."""

    spilled: bool
    watches: tuple[Watch, ...] = ()
    sums: int = 0
    work: int = 0
    each: int = 0

    @property
    def bytes(self) -> int:
        """All together with one sample at a time."""
        return self.sums + self.work + self.each

    def plus(self, watch: Watch, shape: tuple[int, ...]) -> _Load:
        """With one more watch."""
        work = [adding_bytes(tap.groups, feature_count(tap, shape)) for tap in watch.taps]
        tensor = 4 * prod(shape)
        return _Load(
            self.spilled,
            (*self.watches, watch),
            self.sums + (_KEPT if self.spilled else sum_bytes(watch, shape)),
            max([self.work, *(tensor + each for each in work)]),
            self.each + (_COPIES if watch.stats else 1) * tensor,
        )

    def batch(self, budget: int) -> Batch:
        """A run of these watches, with as many samples in a call as there is room for twice: the
        next call runs while this one is looked at."""
        room = budget - self.sums - self.work
        return Batch(self.watches, max(1, min(STACK, room // max(2 * self.each, 1))))
