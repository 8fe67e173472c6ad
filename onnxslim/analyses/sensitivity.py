"""How much the outputs suffer when a single operator is changed: its own error times the gain.

In dB, gain = signal to noise of the outputs - signal to noise at the operator. The noise of several
operators adds up about linearly, so the order is that in which to leave operators as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter


@dataclass(frozen=True)
class Sensitivity:
    """Of one operator."""

    name: str
    db: float  # signal to noise of the outputs when nothing else is changed
    measured: bool  # by a run; else predicted from the gain of others


def sensitivities(
    local_db: Mapping[str, float],
    alone: Callable[[str], float],
    seconds: float,
    clock: Callable[[], float] = perf_counter,
) -> list[Sensitivity]:
    """All operators, those that the outputs suffer from most first.

    `local_db`: operator -> signal to noise of its own tensors. `alone` changes one operator, runs
    the model and gives the signal to noise of the outputs. The operators with most local noise are
    measured first; when the time is up, the rest are predicted with the median gain of those.
    """
    start = clock()
    found: dict[str, Sensitivity] = {}
    gains: list[float] = []
    for name in sorted(local_db, key=lambda n: local_db[n]):
        if found and clock() - start > seconds:
            break
        db = alone(name)
        found[name] = Sensitivity(name, db, measured=True)
        gains.append(db - local_db[name])
    for name, local in local_db.items():
        if name not in found:
            found[name] = Sensitivity(name, local + median(gains), measured=False)
    return sorted(found.values(), key=lambda s: s.db)
