"""Whether one model errs less than another on samples held out, by more than chance explains."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from onnxslim.ir import Array

BATCHES = 5
CERTAINTY = 0.975


def errs_less(after: Array, before: Array) -> bool:
    """Whether the mean error falls from `before` to `after`, by a paired t-test; both [samples].

    One-sided, on the means of up to five batches of neighbours, as neighbours may depend on each
    other (batch means: Schmeiser 1982, Operations Research 30(3)). False for fewer than two
    samples and where an error is no number.
    """
    batches = min(BATCHES, len(before))
    if batches < 2 or not (np.isfinite(before).all() and np.isfinite(after).all()):
        return False
    parts = np.array_split(before.astype(np.float64) - after, batches)
    gains: Array = np.array([part.mean() for part in parts])
    error = float(gains.std(ddof=1)) / batches**0.5
    return bool(gains.mean() > max(float(stdtrit(batches - 1, CERTAINTY)) * error, 0.0))
