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
    """One sweep over the columns of integers [G, out, d], in the precision of the weight.

    `weight`, and `steps`, `low` and `high` of each weight, are [G, out, d], `covariance` [G, d, d].
    Where an input never varies, its integers stay. Cost: 3 * out * d^2 multiplications per group.
    """
    q: Array = integers.copy()
    d = q.shape[2]
    diagonal = np.diagonal(covariance, axis1=1, axis2=2)
    curve: Array = np.where(diagonal > 0, diagonal, np.inf).astype(weight.dtype)
    gradient: Array = (weight - q * steps) @ covariance
    for start in range(0, d, _BLOCK):
        block, later = slice(start, start + _BLOCK), slice(start + _BLOCK, None)
        step = by_column(steps[:, :, block])
        per_step = 1 / (step * curve[:, block, None])
        grid = step, per_step, by_column(low[:, :, block]), by_column(high[:, :, block])
        before, local = by_column(q[:, :, block]), by_column(gradient[:, :, block])
        new = _descend_block(before, local, grid, covariance[:, block, block])
        q[:, :, block] = np.swapaxes(new, 1, 2)
        change = np.swapaxes((new - before) * step, 1, 2)
        gradient[:, :, later] -= change @ covariance[:, block, later]
    return q


def by_column(array: Array) -> Array:
    """[G, out, columns] as [G, columns, out], a copy in which each column is contiguous."""
    return np.array(np.swapaxes(array, 1, 2), order="C")


def _descend_block(
    before: Array, local: Array, grid: tuple[Array, ...], covariance: Array
) -> Array:
    """New integers of some columns; all are [G, columns, out], `local` their gradient."""
    step, per_step, low, high = grid
    q = before.copy()
    for i in range(q.shape[1]):
        wanted = np.rint(q[:, i] + local[:, i] * per_step[:, i])
        new = np.minimum(np.maximum(wanted, low[:, i]), high[:, i])
        change = (new - q[:, i]) * step[:, i]
        local[:, i + 1 :] -= covariance[:, i, i + 1 :, None] * change[:, None, :]
        q[:, i] = new
    return q
