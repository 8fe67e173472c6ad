"""Weights that make up for the errors of the layers before them.

With x^ the input in the quantized model and y = W x the output in the float model, the error of a
weight V and the best bias is tr((V - W*) C (V - W*)^T) plus a constant, with C the covariance of
x^ and W* = E[y x^T] C^-1 (both about their means): the least squares of y on x^. Rounding then
starts at W* instead of W, in the norm of C. Source: Li et al., GPTAQ (2025), which spreads the
same error column by column; He et al., Channel Pruning (2017), equation 2, for the least squares.

Few samples determine W* badly, so that it is drawn toward W: by the ridge with which each half of
the samples errs least on the other half, and W itself where none is better than that.
"""

from __future__ import annotations

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.quant.know.paired import Paired

RIDGES = (0.01, 0.1, 1.0, 10.0)
"""Added to the diagonal of C, as shares of it and of its mean."""


def moved(weight: Array, paired: Paired) -> Array:
    """W*, [G, out, d] float64, drawn toward `weight` [G, out, d].

    W* = W + K (C + ridge)^-1 with K = E[(y - W x^) x^T]. Without two halves it is W.
    Cost: d^3 per group, for each ridge and half.
    """
    if len(paired.halves) < 2:
        return np.asarray(weight, np.float64)
    first, second = paired.halves
    gains = [
        _gain(weight, second, _change(weight, first, ridge))
        + _gain(weight, first, _change(weight, second, ridge))
        for ridge in RIDGES
    ]
    best = int(np.argmax(gains))
    if gains[best] <= 0:
        return np.asarray(weight, np.float64)
    return np.add(weight, _change(weight, paired, RIDGES[best]))


def _change(weight: Array, paired: Paired, ridge: float) -> Array:
    """K (C + ridge)^-1, [G, out, d]."""
    c = paired.covariance
    d = c.shape[1]
    diagonal = np.diagonal(c, axis1=1, axis2=2)
    level = diagonal.mean(axis=1, keepdims=True)
    damped: Array = c.copy()
    damped[:, np.arange(d), np.arange(d)] += np.where(level > 0, ridge * (diagonal + level), 1.0)
    solved: Array = np.linalg.solve(damped, np.swapaxes(_drift(weight, paired), 1, 2))
    return np.asarray(np.swapaxes(solved, 1, 2))


def _drift(weight: Array, paired: Paired) -> Array:
    """K, [G, out, d]."""
    drift: Array = paired.cross - weight @ paired.covariance
    return drift


def _gain(weight: Array, paired: Paired, change: Array) -> float:
    """By how much a change of the weight lowers the squared error on these pairs."""
    error = ((change @ paired.covariance) * change).sum()
    return float(2 * (change * _drift(weight, paired)).sum() - error)
