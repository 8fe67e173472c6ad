"""Confidence intervals of accuracies."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

Interval = tuple[float, float]


def wilson(right: int, count: int, confidence: float = 0.95) -> Interval:
    """Interval of a share `right / count` of independent samples.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal of
    the American Statistical Association 22 (1927): (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) /
    (1 + z^2/n). Within 0..1 also for shares of 0 and 1.
    """
    z = _quantile(confidence)
    p, n = right / count, count
    centre = p + z * z / (2 * n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if right == 0 else (centre - half) / scale  # exactly: rounding must not exclude it
    high = 1.0 if right == count else (centre + half) / scale
    return low, high


def paired_drop(lost: int, gained: int, count: int, confidence: float = 0.95) -> Interval:
    """Interval of the drop `(lost - gained) / count` of two models on the same samples.

    `lost` samples only the first model has right, `gained` only the second. Wald's interval with
    half a sample added to each of the four cells: A. Agresti and Y. Min, Simple improved
    confidence intervals for comparing matched proportions, Statistics in Medicine 24 (2005).
    """
    n, b, c = count + 2, lost + 0.5, gained + 0.5
    drop = (b - c) / n
    half = _quantile(confidence) * sqrt(b + c - (b - c) ** 2 / n) / n
    return max(drop - half, -1.0), min(drop + half, 1.0)


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)
