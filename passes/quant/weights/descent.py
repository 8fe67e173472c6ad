"""Coordinate descent on integers: each column in turn takes those that are best for the others.

Cyclic descent on tr(dW C dW^T) with dW = W - s Q (Behdin et al., QuantEase, 2023); it cannot raise
the error.
"""

from __future__ import annotations

import numpy as np

from onnxslim.ir import Array

_BLOCK = 64  # columns whose changes reach the others in one product


def descend(
    weight: Array, steps: Array, covariance: Array, integers: Array, low: Array, high: Array
) -> Array:
    """One sweep over the columns of integers [G, out, d]; float64, as all arrays.

    `weight`, and `steps`, `low` and `high` of each weight, are [G, out, d], `covariance` [G, d, d].
    Where an input never varies, its integers stay. Cost: 2 * out * d^2 multiplications per group.
    """
    q: Array = integers.copy()
    d = q.shape[2]
    diagonal = np.diagonal(covariance, axis1=1, axis2=2)
    curve = np.where(diagonal > 0, diagonal, np.inf)
    gradient: Array = (weight - q * steps) @ covariance
    for start in range(0, d, _BLOCK):
        block = slice(start, min(start + _BLOCK, d))
        before: Array = q[:, :, block].copy()
        local: Array = gradient[:, :, block].copy()
        for i in range(block.stop - start):
            column = start + i
            step = steps[:, :, column]
            wanted = q[:, :, column] + local[:, :, i] / (step * curve[:, None, column])
            new = np.clip(np.rint(wanted), low[:, :, column], high[:, :, column])
            change = (new - q[:, :, column]) * step
            local -= change[:, :, None] * covariance[:, column, None, block]
            q[:, :, column] = new
        change = (q[:, :, block] - before) * steps[:, :, block]
        gradient -= change @ covariance[:, block, :]
    return q
