"""A choice corrected until the clock shows what is wanted.

What layers take alone says little of what they take in the model, where layouts stay from one to
the next. So a choice is asked for a share of the time, measured in the model, and asked for anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

NEAR = 0.01  # of the time before: so much more than wanted is met
_SPARE = 0.05  # so much less is near enough
_TRIES = 4


@dataclass(frozen=True)
class Attempt(Generic[T]):
    """A choice, the share of the time that it was expected to take, and what the clock says."""

    choice: T
    expected: float
    took: float


def corrected(wanted: float, attempt: Callable[[float], Attempt[T]]) -> Attempt[T]:
    """The slowest choice within the share `wanted`, of a few; the fastest if none is.

    `attempt` makes the choice that is expected to take a share, or the fastest there is.
    """
    asked, best = wanted, attempt(wanted)
    last = best
    for _ in range(_TRIES - 1):
        met = last.took <= wanted + NEAR
        if met and last.took >= wanted - _SPARE:
            break
        if not met and last.expected > asked + NEAR:
            break  # there is nothing faster
        asked = _rescaled(wanted, last)
        if not 0 < asked < 1:
            break
        last = attempt(asked)
        if _preferred(last.took, best.took, wanted + NEAR):
            best = last
    return best


def _preferred(took: float, other: float, most: float) -> bool:
    """The longest time that is within, else the shortest."""
    if (took <= most) != (other <= most):
        return took <= most
    return took > other if took <= most else took < other


def _rescaled(wanted: float, last: Attempt[T]) -> float:
    """The share to ask for: the clock is taken to save in proportion to what was expected."""
    if last.took >= 1 or last.expected >= 1:
        return last.expected - (last.took - wanted)
    return 1 - (1 - wanted) * (1 - last.expected) / (1 - last.took)
