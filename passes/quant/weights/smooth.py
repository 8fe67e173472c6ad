"""Difficulty moved from activations into weights: x W = (x / s) (s W), channel by channel.

s_j = max|x_j|^alpha / max|w_j|^(1 - alpha), Xiao et al., SmoothQuant (2023), equation 4. Here alpha
is chosen for every tensor by the error that the ranges predict.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.quant.know.facts import Channels

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
WORTH_DB = 2.0
"""The gain below which a tensor is left as it is: the division costs a little time."""


def smoothing(x: Channels, weights: Sequence[Array]) -> Array | None:
    """The divisors [C] of a tensor that these weights [out, C] read, or None if not worth it."""
    candidates = [_scales(x, weights, alpha) for alpha in ALPHAS]
    best = min(candidates, key=lambda s: predicted_error(x, weights, s))
    plain = predicted_error(x, weights, np.ones(len(x.mean)))
    gain = 10 * np.log10(max(plain, 1e-30) / max(predicted_error(x, weights, best), 1e-30))
    return best if gain > WORTH_DB else None


def _scales(x: Channels, weights: Sequence[Array], alpha: float) -> Array:
    """Normalized to a geometric mean of one; dead channels keep their scale."""
    size = np.maximum(np.abs(x.min), np.abs(x.max))
    weight = np.max([np.abs(w).max(axis=0) for w in weights], axis=0)
    alive = (size > 0) & (weight > 0)
    log = np.zeros(len(size))
    log[alive] = alpha * np.log(size[alive]) - (1 - alpha) * np.log(weight[alive])
    log[alive] -= log[alive].mean() if alive.any() else 0.0
    return np.exp(log)


def predicted_error(x: Channels, weights: Sequence[Array], s: Array) -> float:
    """Squared error of all outputs from rounding x / s to 8 bits and s W to 8 bits a row.

    Rounding noise is step^2 / 12. E[x_j^2] is mean^2 plus a variance of a sixth of the range,
    squared, because only extremes and means are kept.
    """
    low, high = min(float((x.min / s).min()), 0.0), max(float((x.max / s).max()), 0.0)
    step = (high - low) / 255
    power = (x.mean**2 + ((x.max - x.min) / 6) ** 2) / s**2
    error = 0.0
    for weight in weights:
        scaled = weight * s
        rows = np.abs(scaled).max(axis=1) / 127
        error += step**2 / 12 * float((scaled**2).sum())
        error += float((rows**2).sum()) / 12 * float(power.sum())
    return error
