"""Least squares of a layer's output from the moments of its inputs and outputs together.

With (z, y) side by side: min over H and b of E|y - H z - b|^2 + r |H - H0|^2, a ridge regression
towards the H0 given (Zhang et al. 2015, arXiv 1505.06798, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim.analyses.moments import Moments
from onnxslim.ir import Array
from onnxslim.passes.refit.solve import solved


def regressions(
    matrix: Array, joint: Moments, shares: Sequence[float], biased: bool = True
) -> list[tuple[Array, Array]]:
    """H and b of least squares from the moments of (z, y), drawn towards the H given by a ridge
    of each share of the mean variance of z.

    `matrix` is [G, out, d]; the moments have d + out features. b is zero unless `biased`.
    Returns [G, out, d] and [G, out].
    """
    size, found = matrix.shape[2], list[tuple[Array, Array]]()
    spread = joint.covariance() if biased else joint.second
    gram: Array = np.ascontiguousarray(spread[:, :size, :size])
    wanted = spread[:, :size, size:] - gram @ np.swapaxes(matrix, 1, 2)
    own, at = np.diagonal(gram, axis1=1, axis2=2).copy(), np.arange(size)
    level = own.mean(axis=1, keepdims=True)
    for share in shares:
        gram[:, at, at] = own + np.where(level > 0, share * level, 1.0)
        better = matrix + np.swapaxes(solved(gram, wanted), 1, 2)
        bias = best_bias(better, joint) if biased else np.zeros(matrix.shape[:2])
        found.append((better, bias))
    return found


def best_bias(matrix: Array, joint: Moments) -> Array:
    """The b with which y - H z - b has no mean, [G, out]."""
    mean, size = joint.mean, matrix.shape[2]
    bias: Array = mean[:, size:] - (matrix @ mean[:, :size, None])[..., 0]
    return bias


def joint_error(matrix: Array, bias: Array, joint: Moments) -> float:
    """E|y - H z - b|^2 over the rows that the moments of (z, y) were taken from."""
    size, sums = matrix.shape[2], joint.scatter
    spread = float(np.sum((matrix @ sums[:, :size, :size] - 2 * sums[:, size:, :size]) * matrix))
    spread += float(np.trace(sums[:, size:, size:], axis1=1, axis2=2).sum())
    shift = joint.mean[:, size:] - (matrix @ joint.mean[:, :size, None])[..., 0] - bias
    return spread / max(joint.n, 1) + float(np.square(shift).sum())
