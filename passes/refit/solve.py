"""Linear systems of covariances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from onnxslim.ir import Array


def solver(covariance: Array) -> Callable[[Array], Array]:
    """B -> C^-1 B for one symmetric positive definite C [d, d], float64, by Cholesky.

    Where rounding has left C without a factor it is taken for a general matrix.
    """
    try:
        given = np.transpose(covariance)  # the same, in the order that LAPACK takes
        factor = cho_factor(given, lower=True, check_finite=False)
    except LinAlgError:
        return lambda wanted: np.asarray(np.linalg.solve(covariance, wanted))
    return lambda wanted: np.asarray(cho_solve(factor, wanted, check_finite=False))


def solved(covariance: Array, wanted: Array) -> Array:
    """C^-1 B for C [d, d] or [G, d, d] and B [d, n] or [G, d, n]; many small C as general ones."""
    if covariance.ndim == 2:
        return solver(covariance)(wanted)
    if len(covariance) == 1:
        return solver(covariance[0])(wanted[0])[None]
    return np.asarray(np.linalg.solve(covariance, wanted))
