"""Codes and their grids, fitted together to the second moment of a layer's input.

Minimizes tr(dW S dW^T), the error of the output without a bias to make up for it: GPTQ (Frantar et
al., 2022) in the order of the diagonal of S on grids whose ranges were chosen for that diagonal;
then in turn coordinate descent on the codes (descent.py) and the scales that are best for them, of
all blocks of a row at once: with c_b the codes of block b less their zero point, s solves
A s = r, A_bb' = c_b S_bb' c_b', r_b = c_b S_b w. Neither of the two can raise the error.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.quant.weight_only.grid import Grid, fitted
from onnxslim.passes.quant.weights.descent import descend
from onnxslim.passes.quant.weights.rounding import DAMPING, round_to_grid

SWEEPS = 4
"""Sweeps of coordinate descent, each followed by a fit of the scales."""

ROWS = 4096
"""Outputs that are worked on at a time, which bounds the memory."""

NOISE = 0.6
"""More of the mean of the diagonal is added to it where samples are few, as that times d / samples:
on other text than they come from, layers of a language model are best with .2 at 2000 samples and
576 inputs."""

_RIDGE = 1e-6  # of the mean of the diagonal of A


def fit_codes(
    weight: Array, bits: int, block: int, second: Array, samples: int, symmetric: bool = False
) -> tuple[Array, Grid]:
    """Codes [out, d] and their grid for a weight [out, d]; `second` is E[x x^T], [d, d].

    `samples` is the number of rows x that it was taken from. Cost: about 3 * SWEEPS * out * d^2
    multiplications.
    """
    damped = _damped(second, samples)
    parts = [
        _fit(weight[start : start + ROWS], bits, block, damped, symmetric)
        for start in range(0, len(weight), ROWS)
    ]
    scale = np.concatenate([grid.scale for _, grid in parts])
    zero = np.concatenate([grid.zero for _, grid in parts])
    return np.concatenate([codes for codes, _ in parts]), Grid(scale, zero, bits, block)


def _damped(second: Array, samples: int) -> Array:
    d = len(second)
    level = np.trace(second) / d
    share = DAMPING + NOISE * d / max(samples, 1)
    return np.asarray(second + (share * level if level > 0 else 1.0) * np.eye(d))


def error(weight: Array, codes: Array, grid: Grid, second: Array) -> Array:
    """dw S dw^T of each row, [out]."""
    dw: Array = weight - grid.values(codes)
    errors: Array = ((dw @ second) * dw).sum(axis=1)
    return errors


def _fit(
    weight: Array, bits: int, block: int, second: Array, symmetric: bool
) -> tuple[Array, Grid]:
    grid = fitted(weight, bits, block, np.diagonal(second), symmetric)
    order = np.argsort(-np.diagonal(second), kind="stable")
    back = np.argsort(order)
    w: Array = weight.astype(np.float32)[None, :, order]
    narrow: Array = second.astype(np.float32)
    s: Array = narrow[None, order][:, :, order]
    zero: Array = grid.spread(grid.zero)[None, :, order]
    low, high = -zero, grid.top - zero

    def steps() -> Array:
        spread: Array = grid.spread(grid.scale)
        return spread[None, :, order]

    q = round_to_grid(w, steps(), s, low, high)
    for _ in range(SWEEPS):
        q = descend(w, steps(), s, q, low, high)
        grid = replace(grid, scale=refitted(weight, q[0][:, back], grid, narrow))
    codes: Array = q[0][:, back] + grid.spread(grid.zero)
    return codes, grid


def refitted(weight: Array, centred: Array, grid: Grid, second: Array) -> Array:
    """The scales [out, blocks] that are best for codes less their zero points, [out, d].

    A row keeps its scales where the new ones are not all positive.
    """
    out, count = grid.scale.shape
    c: Array = centred.reshape(out, count, grid.block)
    system: Array = np.empty((out, count, count))
    right: Array = np.empty((out, count))
    for b in range(count):
        columns = slice(b * grid.block, (b + 1) * grid.block)
        seen: Array = c[:, b] @ second[columns]
        system[:, b, b:] = np.einsum("obk,obk->ob", seen.reshape(c.shape)[:, b:], c[:, b:])
        system[:, b:, b] = system[:, b, b:]
        right[:, b] = np.einsum("od,od->o", seen, weight)
    ridge = np.trace(system, axis1=1, axis2=2) / count * _RIDGE
    ridge = np.where(ridge > 0, ridge, 1.0)
    before: Array = grid.scale.astype(np.float64)
    system += ridge[:, None, None] * np.eye(count)
    right += ridge[:, None] * before
    found = np.linalg.solve(system, right[:, :, None])[:, :, 0]
    good = np.all(np.isfinite(found) & (found > 0), axis=1, keepdims=True)
    return np.where(good, found, before).astype(np.float32)
