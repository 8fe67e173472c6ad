"""Rounding of weights that makes up for its own error: each column's is spread over the next ones.

GPTQ (Frantar et al., 2022), algorithm 1, in the fixed order of columns: with H^-1 = U^T U, column i
becomes q_i and the columns j > i change by -(w_i - q_i) U_ij / U_ii. H is the covariance C of the
layer's input instead of its second moment, because the mean of the error goes into the bias; then
tr(dW C dW^T) is the error of the output.
"""

from __future__ import annotations

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.quant.weights.descent import by_column

DAMPING = 0.01
"""Added to the diagonal of C, as a share of its mean: as in the paper's own code."""


_BLOCK = 64  # columns whose errors reach the columns behind them in one product


def round_by_covariance(
    weight: Array, scale: Array, covariance: Array, top: int, low: int | None = None
) -> Array:
    """Integers from `low` (-top unless given) to `top`, float64 [G, out, d].

    `weight` [G, out, d] in float64, `scale` [G, out], `covariance` [G, d, d]. Where an input never
    varies, the nearest integers are returned. Cost: out * d^2 multiplications per group.
    """
    steps = np.broadcast_to(scale[:, :, None], weight.shape)
    lowest = np.broadcast_to(np.float64(-top if low is None else low), weight.shape)
    highest = np.broadcast_to(np.float64(top), weight.shape)
    return round_to_grid(weight, steps, covariance, lowest, highest)


def round_to_grid(weight: Array, scale: Array, covariance: Array, low: Array, high: Array) -> Array:
    """Integers from `low` to `high`, [G, out, d], where each weight has its own scale.

    All are [G, out, d] but `covariance` [G, d, d]; the precision is that of the weight, single or
    double. See `round_by_covariance`.
    """
    left: Array = np.array(weight)
    factor = _factor(covariance)
    d = left.shape[2]
    integers: Array = np.empty_like(left)
    for start in range(0, d, _BLOCK):
        block, later = slice(start, start + _BLOCK), slice(start + _BLOCK, None)
        grid = tuple(by_column(array[:, :, block]) for array in (scale, low, high))
        found, errors = _round_block(by_column(left[:, :, block]), grid, factor[:, block, block])
        integers[:, :, block] = np.swapaxes(found, 1, 2)
        left[:, :, later] -= np.swapaxes(errors, 1, 2) @ factor[:, block, later]
    return integers


def _round_block(left: Array, grid: tuple[Array, ...], factor: Array) -> tuple[Array, Array]:
    """The integers of some columns, and their errors over the diagonal of U; all [G, columns, out]
    but `factor`, also the scales, lowest and highest integers of `grid`."""
    scale, low, high = grid
    integers: Array = np.empty_like(left)
    errors: Array = np.empty_like(left)
    for i in range(left.shape[1]):
        nearest = np.rint(left[:, i] / scale[:, i])
        integers[:, i] = np.minimum(np.maximum(nearest, low[:, i]), high[:, i])
        errors[:, i] = (left[:, i] - integers[:, i] * scale[:, i]) / factor[:, i, i, None]
        left[:, i + 1 :] -= factor[:, i, i + 1 :, None] * errors[:, i, None, :]
    return integers, errors


def _factor(covariance: Array) -> Array:
    """U, upper triangular, with (C + damping)^-1 = U^T U, [G, d, d]; the identity where C is zero.

    With J the reversal of order and J C J = L L^T, U = J L^-1 J: no inverse of a full matrix.
    """
    d = covariance.shape[1]
    level = np.trace(covariance, axis1=1, axis2=2)[:, None] / d
    damped: Array = covariance.copy()
    damped[:, np.arange(d), np.arange(d)] += np.where(level > 0, DAMPING * level, 1.0)
    lower = np.linalg.cholesky(damped[:, ::-1, ::-1])
    if d <= _BLOCK:
        return np.linalg.inv(lower)[:, ::-1, ::-1]
    return np.stack([_lower_inverse(one)[::-1, ::-1] for one in lower])


def _lower_inverse(lower: Array) -> Array:
    from scipy.linalg.lapack import dtrtri, strtri

    invert = strtri if lower.dtype == np.float32 else dtrtri
    inverse, _ = invert(lower, lower=1)
    return np.asarray(inverse)
