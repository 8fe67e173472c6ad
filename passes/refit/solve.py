"""Linear systems of covariances."""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from onnxslim.ir import Array


def solved(covariance: Array, wanted: Array) -> Array:
    """C^-1 B for symmetric positive definite C [d, d] or [G, d, d] and B [.., d, n], float64.

    A single system goes by Cholesky; many small ones, and one that rounding has left without a
    factor, as general systems.
    """
    if covariance.ndim == 3 and len(covariance) == 1:
        return solved(covariance[0], wanted[0])[None]
    if covariance.ndim == 2:
        try:
            factor = cho_factor(covariance, lower=True, check_finite=False)
            return np.asarray(cho_solve(factor, wanted, check_finite=False))
        except LinAlgError:
            pass
    return np.asarray(np.linalg.solve(covariance, wanted))
