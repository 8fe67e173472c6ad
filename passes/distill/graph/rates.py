"""The learning rate: the best of short trainings that are the whole one in small."""

from __future__ import annotations

import math
from collections.abc import Callable

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
FIRST = 4
CAREFUL = 3e-4
"""The rate where there is no time for trials."""

SHARE, LARGEST = 0.025, 1 / 15
"""Of the time or the steps, for one trial: as planned, and where that would be too few steps."""

FEWEST, MOST = 8, 100
"""Steps of a trial."""


def best_rate(trial: Callable[[float], float], start: float) -> float:
    """One above the rate of which `trial`, the loss after a short training, is least.

    From `FIRST` on, those above are tried as long as it gets better, or else those below. An
    infinite loss is one that became no number. Short trainings favour low rates (Wu et al. 2018,
    "short-horizon bias"), hence the next one up, unless even in short it ended above `start`.
    """
    errors: dict[int, float] = {}

    def error(at: int) -> float:
        if at not in errors:
            errors[at] = trial(RATES[at])
        return errors[at]

    at = FIRST
    while at + 1 < len(RATES) and error(at + 1) < error(at):
        at += 1
    while at > 0 and (math.isinf(error(at)) or error(at - 1) < error(at)):
        at -= 1
    return RATES[at + 1 if errors.get(at + 1, math.inf) < start else at]
