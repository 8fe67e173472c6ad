"""How sure the difference of two models' metrics is, as both are scored on the same samples."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tests.bench.cases import Case, Outputs

_PARTS = 20


def standard_error(case: Case, one: Outputs, other: Outputs) -> float:
    """Of the metric of `one` less that of `other`: the jackknife that leaves out a part at a time.

    Parts are runs of neighbours, as samples next to each other may be views of one original.
    sqrt((g - 1) / g sum (d_i - mean d)^2) for g parts (Efron and Tibshirani 1993, An Introduction
    to the Bootstrap, eq. 11.5).
    """
    found: list[float] = []
    parts = min(_PARTS, len(one))
    ends = [len(one) * part // parts for part in range(parts + 1)]
    for first, last in pairwise(ends):
        labels = case.labels[:first] + case.labels[last:]
        left, right = (outputs[:first] + outputs[last:] for outputs in (one, other))
        found.append(case.metric(left, labels) - case.metric(right, labels))
    return float(np.sqrt((len(found) - 1) * np.array(found).var()))
