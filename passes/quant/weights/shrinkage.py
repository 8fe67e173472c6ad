"""Covariances from few samples, made trustworthy: what they say of pairs of inputs is toned down.

Rows of one image resemble each other, so that thousands of rows from a few images determine a
covariance badly, and second-order rounding trusts it in full. The correlations are therefore
shrunk toward none by the factor that is best for Gaussian samples: Chen et al., Shrinkage
algorithms for MMSE covariance estimation (2010), equation 23, applied to the correlation matrix,
with the number of calibration samples for the number of observations.
"""

from __future__ import annotations

import numpy as np

from onnxslim.ir import Array


def shrunk(covariance: Array, count: int) -> Array:
    """Covariances [G, d, d] with the same diagonals and smaller entries beside them, float64.

    `count` is the number of independent observations, at least 1.
    """
    d = covariance.shape[1]
    diagonal = np.diagonal(covariance, axis1=1, axis2=2)
    found: Array = covariance * (1 - intensity(covariance, count))[:, None, None]
    found[:, np.arange(d), np.arange(d)] = diagonal
    return found


def intensity(covariance: Array, count: int) -> Array:
    """How much of each correlation is not believed, [G], from 0 to 1."""
    d = covariance.shape[1]
    diagonal = np.diagonal(covariance, axis1=1, axis2=2)
    deviation = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    correlation = covariance / deviation[:, :, None] / deviation[:, None, :]
    trace = np.trace(correlation, axis1=1, axis2=2)
    squares: Array = (correlation**2).sum(axis=(1, 2))
    above = (1 - 2 / d) * squares + trace**2
    below = (count + 1 - 2 / d) * (squares - trace**2 / d)
    rho: Array = np.ones(len(covariance))
    np.divide(above, below, out=rho, where=below > 0)
    return np.clip(rho, 0.0, 1.0)
