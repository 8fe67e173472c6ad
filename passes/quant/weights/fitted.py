"""Integers of few bits and their scales, fitted together to the covariance of the layer's input.

Minimizes tr(dW C dW^T) with dW = W - s Q: for each row the scale that is best for the nearest
integers and the diagonal of C, GPTQ (Frantar et al., 2022) in the order of that diagonal with this
scale and a smaller one, the better of the two, then in turn cyclic coordinate
descent (Behdin et al., QuantEase, 2023) and the scale that is best for the integers,
s = w C q / q C q. Neither of the two can raise the error.
"""

from __future__ import annotations

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.quant.weights.descent import descend
from onnxslim.passes.quant.weights.rounding import round_by_covariance

FACTORS = tuple(1 - 0.04 * i for i in range(14))
"""Scales that are tried, as shares of the one that holds the largest weight."""

NEAR = (1.0, 0.93)
"""Shares of the scale that is best for the nearest integers with which GPTQ is tried."""

SWEEPS = 3
"""Sweeps of coordinate descent, each followed by a fit of the scales."""


def fit(
    weight: Array, scale: Array, covariance: Array, top: int, shared: bool = False
) -> tuple[Array, Array]:
    """Integers [G, out, d] from -top - 1 to top, and scales [G, out]; all float64.

    `weight` [G, out, d], `covariance` [G, d, d]. `scale` [G, out] holds the largest weights.
    `shared`: one scale for all rows, so that it is chosen for their sum.
    Cost: out * d^2 multiplications for each factor and sweep.
    """
    order = np.argsort(-np.diagonal(covariance, axis1=1, axis2=2), axis=1, kind="stable")
    w = np.take_along_axis(weight, order[:, None, :], axis=2)
    c = np.take_along_axis(covariance, order[:, :, None], axis=1)
    c = np.take_along_axis(c, order[:, None, :], axis=2)
    scale = _nearest_scale(w, scale, c, top, shared)
    integers, scales = _best_factor(w, scale, c, top, shared)
    ends = np.broadcast_to(np.float64(top), w.shape)
    for _ in range(SWEEPS):
        steps = np.broadcast_to(scales[:, :, None], w.shape)
        integers = descend(w, steps, c, integers, -ends - 1, ends)
        if not shared:
            scales = _refitted(w, scales, c, integers)
    back = np.argsort(order, axis=1)
    return np.take_along_axis(integers, back[:, None, :], axis=2), scales


def row_errors(weight: Array, scale: Array, covariance: Array, integers: Array) -> Array:
    """dw C dw^T of each row, [G, out]."""
    dw: Array = weight - integers * scale[:, :, None]
    errors: Array = ((dw @ covariance) * dw).sum(axis=2)
    return errors


def _nearest_scale(w: Array, scale: Array, c: Array, top: int, shared: bool) -> Array:
    """The scales of `FACTORS` for which rounding to the nearest errs least by the diagonal of C."""
    diagonal = np.diagonal(c, axis1=1, axis2=2)[:, None, :]
    errors: list[Array] = []
    for factor in FACTORS:
        s = (scale * factor)[:, :, None]
        dw: Array = w - np.clip(np.rint(w / s), -top - 1, top) * s
        errors.append((dw**2 * diagonal).sum(axis=2))
    table: Array = np.stack(errors)
    if shared:
        table = np.broadcast_to(table.sum(axis=(1, 2), keepdims=True), table.shape)
    best: Array = np.asarray(FACTORS)[table.argmin(axis=0)]
    return np.multiply(scale, best)


def _best_factor(w: Array, scale: Array, c: Array, top: int, shared: bool) -> tuple[Array, Array]:
    """The integers and scales of the best factor, row by row."""
    count = len(NEAR)
    scales = np.concatenate([scale * f for f in NEAR], axis=1)
    rows = np.tile(w, (1, count, 1))
    integers = round_by_covariance(rows, scales, c, top, -top - 1)
    groups, out, d = w.shape
    errors = row_errors(rows, scales, c, integers).reshape(groups, count, out)
    if shared:
        errors = np.broadcast_to(errors.sum(axis=(0, 2), keepdims=True), errors.shape)
    best = errors.argmin(axis=1)[:, None, :]
    found = np.take_along_axis(integers.reshape(groups, count, out, d), best[..., None], axis=1)
    chosen = np.take_along_axis(scales.reshape(groups, count, out), best, axis=1)
    return found[:, 0], chosen[:, 0]


def _refitted(w: Array, scale: Array, c: Array, integers: Array) -> Array:
    """The scales that are best for these integers."""
    products = integers @ c
    power = (products * integers).sum(axis=2)
    overlap = (products * w).sum(axis=2)
    known = (power > 0) & (overlap > 0)
    return np.where(known, overlap / np.where(known, power, 1.0), scale)
