"""First and second moments of the rows of a tap: sums that merge exactly.

With C the covariance and m the mean of the rows x of a layer, a change dW of its weight and db of
its bias changes the output by dW x + db, whose mean squared norm is tr(dW C dW^T) + |dW m + db|^2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnxslim.ir import Array

_BATCHED_BELOW = 64  # features; smaller Gram matrices of many groups go through one matmul


@dataclass(frozen=True)
class Moments:
    """What n rows of d features have in common, per group. What is made of them is float64."""

    n: int
    mean: Array  # [G, d] float64
    scatter: Array  # [G, d, d], sum over rows of (x - mean)(x - mean)^T; float32 where `narrow`

    def narrow(self) -> Moments:
        """The same in half of the memory, and of the precision in which Gram matrices are added."""
        return replace(self, scatter=self.scatter.astype(np.float32))

    @property
    def second(self) -> Array:
        """E[x x^T], [G, d, d]."""
        return self.about(np.zeros_like(self.mean))

    def about(self, centre: Array) -> Array:
        """E[(x - centre)(x - centre)^T], [G, d, d]; `centre` [G, d]."""
        found, shift = self.covariance(), self.mean - centre
        if shift.any():
            found += shift[:, :, None] * shift[:, None, :]
        return found

    def covariance(self) -> Array:
        """E[(x - mean)(x - mean)^T], [G, d, d]."""
        return np.divide(self.scatter, max(self.n, 1), dtype=np.float64)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of rows (Chan, Golub and LeVeque 1979, eq. 2.1)."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"moments of {self.mean.shape} and {other.mean.shape} features")
        n = self.n + other.n
        delta = other.mean - self.mean
        share = other.n / max(n, 1)
        scatter = self.scatter + other.scatter
        scatter += (self.n * share) * (delta[:, :, None] * delta[:, None, :])
        return Moments(n, self.mean + share * delta, scatter)


def moments_of(rows: Array) -> Moments:
    """The moments of rows [G, n, d], n at least 1; the Gram matrix is computed in float32."""
    mean: Array = rows.mean(axis=1, dtype=np.float64)
    centred = np.subtract(rows, mean[:, None, :].astype(np.float32), dtype=np.float32)
    gram = _gram(centred)
    rest: Array = centred.mean(axis=1, dtype=np.float64)  # what rounding the mean left over
    n = int(rows.shape[1])
    scatter = gram.astype(np.float64)
    scatter -= n * (rest[:, :, None] * rest[:, None, :])
    return Moments(n, mean, scatter)


def _gram(rows: Array) -> Array:
    if rows.shape[2] < _BATCHED_BELOW:
        products: Array = np.matmul(np.swapaxes(rows, 1, 2), rows)
        return products
    return np.stack([np.transpose(x) @ x for x in rows])  # BLAS syrk: half the work


def output_error(moments: Moments, change: Array, bias_change: Array | None = None) -> float:
    """The mean squared norm of a layer's output error under a weight change, all outputs summed.

    `change` is dW as [G, out/G, d], `bias_change` is db as [out]. Without it the bias is taken to
    absorb the mean, db = -dW m, which leaves tr(dW C dW^T). Cost: out * d * d.
    """
    wide = change.astype(np.float64)
    error = float(np.sum((wide @ moments.covariance()) * wide))
    if bias_change is not None:
        shift = (wide @ moments.mean[:, :, None]).ravel() + bias_change
        error += float(shift @ shift)
    return error
