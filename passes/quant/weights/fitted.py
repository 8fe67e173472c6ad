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
from onnxslim.passes.quant.weights.blocks import block_of, block_scales
from onnxslim.passes.quant.weights.descent import descend
from onnxslim.passes.quant.weights.rounding import round_to_grid

FACTORS = tuple(1 - 0.04 * i for i in range(14))
"""Scales that are tried, as shares of the one that holds the largest weight."""

NEAR = (1.0, 0.93)
"""Shares of the scale that is best for the nearest integers with which GPTQ is tried."""

SWEEPS = 3
"""Sweeps of coordinate descent, each followed by a fit of the scales."""


def fit(
    weight: Array,
    scale: Array,
    covariance: Array,
    top: int,
    shared: bool = False,
    most: int = 1,
) -> tuple[Array, Array]:
    """Integers [G, out, d] from -top - 1 to top, and scales [G, out]; all float64.

    `weight` [G, out, d], `covariance` [G, d, d]. `scale` [G, out] holds the largest weights.
    `shared`: one scale for all rows, so that it is chosen for their sum. With `most` above 1 the
    integers of each block of inputs are such codes times a whole number up to that (blocks.py).
    Cost: out * d^2 multiplications for each factor and sweep.
    """
    diagonal = np.diagonal(covariance, axis1=1, axis2=2)
    if most > 1 and not shared and block_of(weight.shape[2]) < weight.shape[2]:
        scale, times = block_scales(weight, scale, diagonal, top, most)
    else:
        scale, times = _nearest_scale(weight, scale, diagonal, top, shared), np.ones(weight.shape)
    order = np.argsort(-np.diagonal(covariance, axis1=1, axis2=2), axis=1, kind="stable")
    w, t = (np.take_along_axis(array, order[:, None, :], axis=2) for array in (weight, times))
    c = np.take_along_axis(covariance, order[:, :, None], axis=1)
    c = np.take_along_axis(c, order[:, None, :], axis=2)
    codes, scales = _best_factor(w, scale, t, c, top, shared)
    ends = np.broadcast_to(np.float64(top), w.shape)
    for _ in range(SWEEPS):
        codes = descend(w, scales[:, :, None] * t, c, codes, -ends - 1, ends)
        if not shared:
            scales = _refitted(w, scales, c, codes * t)
    back = np.argsort(order, axis=1)
    return np.take_along_axis(codes * t, back[:, None, :], axis=2), scales


def row_errors(weight: Array, scale: Array, covariance: Array, integers: Array) -> Array:
    """dw C dw^T of each row, [G, out]."""
    dw: Array = weight - integers * scale[:, :, None]
    errors: Array = ((dw @ covariance) * dw).sum(axis=2)
    return errors


def _nearest_scale(w: Array, scale: Array, diagonal: Array, top: int, shared: bool) -> Array:
    """The scales of `FACTORS` for which rounding to the nearest errs least by the diagonal of C."""
    errors: list[Array] = []
    for factor in FACTORS:
        s = (scale * factor)[:, :, None]
        dw: Array = w - np.clip(np.rint(w / s), -top - 1, top) * s
        errors.append((dw**2 * diagonal[:, None, :]).sum(axis=2))
    table: Array = np.stack(errors)
    if shared:
        table = np.broadcast_to(table.sum(axis=(1, 2), keepdims=True), table.shape)
    best: Array = np.asarray(FACTORS)[table.argmin(axis=0)]
    return np.multiply(scale, best)


def _best_factor(
    w: Array, scale: Array, times: Array, c: Array, top: int, shared: bool
) -> tuple[Array, Array]:
    """The codes and scales of the best factor, row by row."""
    count = len(NEAR)
    scales = np.concatenate([scale * f for f in NEAR], axis=1)
    rows, t = np.tile(w, (1, count, 1)), np.tile(times, (1, count, 1))
    ends = np.broadcast_to(np.float64(top), rows.shape)
    codes = round_to_grid(rows, scales[:, :, None] * t, c, -ends - 1, ends)
    groups, out, d = w.shape
    errors = row_errors(rows, scales, c, codes * t).reshape(groups, count, out)
    if shared:
        errors = np.broadcast_to(errors.sum(axis=(0, 2), keepdims=True), errors.shape)
    best = errors.argmin(axis=1)[:, None, :]
    found = np.take_along_axis(codes.reshape(groups, count, out, d), best[..., None], axis=1)
    chosen = np.take_along_axis(scales.reshape(groups, count, out), best, axis=1)
    return found[:, 0], chosen[:, 0]


def _refitted(w: Array, scale: Array, c: Array, integers: Array) -> Array:
    """The scales that are best for these integers."""
    products = integers @ c
    power = (products * integers).sum(axis=2)
    overlap = (products * w).sum(axis=2)
    known = (power > 0) & (overlap > 0)
    return np.where(known, overlap / np.where(known, power, 1.0), scale)
