"""Signal to noise in decibels, of outputs and of layers."""

from __future__ import annotations

import numpy as np

from onnxslim.ir import Array

BEST_DB = 80.0
"""More is not told apart."""


def to_db(signal: float, noise: float) -> float:
    """Of two powers; at most `BEST_DB`."""
    if noise <= 0:
        return BEST_DB
    return min(10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30))), BEST_DB)


def rows_db(weight: Array, values: Array, second: Array) -> float:
    """Of a product with rows x, E[x x^T] = `second` [d, d], that has no bias to take up a mean.

    `weight`, and `values` in its place, are [out, d].
    """
    change: Array = weight - values
    spread = second.astype(np.float32)
    return to_db(output_power(weight, spread), output_power(change, spread))


def output_power(weight: Array, spread: Array) -> float:
    """tr(W S W^T) in single precision, which is exact enough for decibels."""
    narrow = weight.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # of weights as large as 1e20
        products: Array = (narrow @ spread) * narrow
    return float(products.sum(dtype=np.float64))
