"""Rounding of weights that makes up for its own error: each column's is spread over the next ones.

GPTQ (Frantar et al., 2022), algorithm 1, in the fixed order of columns: with H^-1 = U^T U, column i
becomes q_i and the columns j > i change by -(w_i - q_i) U_ij / U_ii. H is the covariance C of the
layer's input instead of its second moment, because the mean of the error goes into the bias; then
tr(dW C dW^T) is the error of the output.
"""

from __future__ import annotations

import numpy as np

from onnxslim.ir import Array

DAMPING = 0.01
"""Added to the diagonal of C, as a share of its mean: as in the paper's own code."""


def round_by_covariance(weight: Array, scale: Array, covariance: Array, top: int) -> Array:
    """Integers of magnitude up to `top`, float64 [G, out, d].

    `weight` [G, out, d] in float64, `scale` [G, out], `covariance` [G, d, d]. Where an input never
    varies, the nearest integers are returned. Cost: out * d^2 multiplications per group.
    """
    left: Array = np.array(weight, np.float64)
    step = scale[:, :, None]
    factor = _factor(covariance)
    integers: Array = np.empty_like(left)
    for i in range(left.shape[2]):
        integers[:, :, i : i + 1] = np.clip(np.rint(left[:, :, i : i + 1] / step), -top, top)
        error = left[:, :, i : i + 1] - integers[:, :, i : i + 1] * step
        left[:, :, i + 1 :] -= error * (factor[:, i, None, i + 1 :] / factor[:, i, i, None, None])
    return integers


def _factor(covariance: Array) -> Array:
    """U, upper triangular, with (C + damping)^-1 = U^T U; the identity where C is zero."""
    d = covariance.shape[1]
    level = np.trace(covariance, axis1=1, axis2=2)[:, None, None] / d
    damped: Array = covariance + np.where(level > 0, DAMPING * level, 1.0) * np.eye(d)
    inverse = np.linalg.inv(damped)
    symmetric: Array = (inverse + np.swapaxes(inverse, 1, 2)) / 2
    return np.swapaxes(np.linalg.cholesky(symmetric), 1, 2)
