"""Which tensors are watched in the same run, so that a run stays within a budget of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from onnxslim.analyses.columns import Tap, feature_count
from onnxslim.analyses.moments import builder_bytes

BUDGET = 256 << 20
"""Bytes that one run may take beyond what the model itself needs: sums, watched tensors, rows.
A single tensor that needs more is watched alone."""

_STACK = 32  # samples in one call; more bring no speed
_COPIES = 3  # of a watched tensor: as returned, as float32 without padding, as sorted into bins


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
    watches: Sequence[Watch], shapes: Mapping[str, tuple[int, ...]], budget: int = BUDGET
) -> list[Batch]:
    """Split into as few runs as the budget allows, in the order given.

    `shapes` are those of one sample. A tensor without one is watched alone, sample by sample.
    """
    batches: list[Batch] = []
    current: list[Watch] = []
    fixed = moving = 0
    for watch in watches:
        shape = shapes.get(watch.tensor)
        if shape is None:
            batches.append(Batch((watch,), 1))
            continue
        sums, copies = sum_bytes(watch, shape), _COPIES * 4 * prod(shape)
        if current and fixed + sums + moving + copies > budget:
            batches.append(Batch(tuple(current), _stack(budget - fixed, moving)))
            current, fixed, moving = [], 0, 0
        current.append(watch)
        fixed, moving = fixed + sums, moving + copies
    if current:
        batches.append(Batch(tuple(current), _stack(budget - fixed, moving)))
    return batches


def sum_bytes(watch: Watch, shape: tuple[int, ...]) -> int:
    """The bytes of what is added up over all samples."""
    features = [(tap.groups, feature_count(tap, shape)) for tap in watch.taps]
    return sum(builder_bytes(groups, d) for groups, d in features) + (1 << 16)


def _stack(room: int, each: int) -> int:
    return max(1, min(_STACK, room // max(each, 1)))
