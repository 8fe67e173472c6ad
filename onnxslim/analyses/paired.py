"""Whether one model errs less than another on samples held out, by more than chance explains."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from onnxslim.ir import Array

CERTAINTY = 0.975
LIKELY = 0.8


def errs_less(after: Array, before: Array, runs: int, certainty: float = CERTAINTY) -> bool:
    """Whether the mean error falls from `before` to `after`, by a paired t-test; both [samples].

    One-sided, on the means of so many runs of neighbours, as those may be views of one thing, and
    hundreds of views of two things tell little of a third (batch means: Schmeiser 1982, Operations
    Research 30(3)). False for fewer than two samples and where an error is no number.
    """
    batches = min(runs, len(before))
    if batches < 2 or not (np.isfinite(before).all() and np.isfinite(after).all()):
        return False
    parts = np.array_split(before.astype(np.float64) - after, batches)
    gains: Array = np.array([part.mean() for part in parts])
    error = float(gains.std(ddof=1)) / batches**0.5
    return bool(gains.mean() > max(float(stdtrit(batches - 1, certainty)) * error, 0.0))


def likely_harms(after: Array, before: Array, runs: int) -> bool:
    """Whether the errors likely grew, or one is no number. Of a first of many changes that is
    enough to know, where a later one may gain by it, and all of them are judged in the end."""
    return not np.isfinite(after).all() or errs_less(before, after, runs, LIKELY)
