"""Grids that are found without data are at least as good as half-quadratic quantization's.

HQQ (Badri and Shaji, 2023) minimizes |w - scale (q - zero)|^p with p < 1 over the zero point, by a
proximal step that leaves outliers alone and a closed form for the zero. Kernels that multiply
integers take whole zero points, to which its own are rounded here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnxslim.ir import Array
from onnxslim.passes.quant.weight_only.grid import fitted

P, BETA, KAPPA, STEPS = 0.7, 10.0, 1.01, 20
"""The norm, the first weight of the split, what it grows by, and steps: those of its authors."""

BLOCK = 32

TAILS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "Laplace": lambda rng, shape: rng.laplace(size=shape),
    "Student 5": lambda rng, shape: rng.standard_t(5, shape),
    "Student 3": lambda rng, shape: rng.standard_t(3, shape),
    "Student 2": lambda rng, shape: rng.standard_t(2, shape),
}


def half_quadratic(weight: Array, bits: int, steps: int = STEPS, *, whole: bool = True) -> Array:
    """What HQQ makes of a weight [out, d], with whole zero points or its own."""
    blocks, top, beta = weight.reshape(len(weight), -1, BLOCK), 2**bits - 1, BETA
    low, high = blocks.min(axis=2, keepdims=True), blocks.max(axis=2, keepdims=True)
    scale = (high - low) / top
    best_zero = zero = np.rint(-low / scale)
    best = np.inf

    def rounded(zero: Array) -> tuple[Array, Array]:
        codes = np.clip(np.rint(blocks / scale + zero), 0, top)
        return codes, (codes - zero) * scale

    for _ in range(steps):
        codes, values = rounded(zero)
        off = blocks - values
        error = float(np.abs(off).mean())
        if error >= best:
            break
        best, best_zero = error, zero
        shrunk = np.maximum(np.abs(off) - np.maximum(np.abs(off), 1e-12) ** (P - 1) / beta, 0)
        outliers = np.sign(off) * shrunk
        zero = np.mean(codes - (blocks - outliers) / scale, axis=2, keepdims=True)
        beta *= KAPPA
    found: Array = rounded(np.clip(np.rint(best_zero), 0, top) if whole else best_zero)[1]
    return found.reshape(weight.shape)


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("tail", TAILS)
def test_the_grid_is_no_worse_in_squares_nor_in_its_own_norm(tail: str, bits: int) -> None:
    for seed in range(5):
        weight = TAILS[tail](np.random.default_rng(seed), (64, 256)).astype(np.float32)
        grid = fitted(weight, bits, BLOCK)
        ours = np.abs(grid.values(grid.codes(weight)) - weight)
        theirs = np.abs(half_quadratic(weight, bits) - weight)
        assert np.square(ours).sum() <= np.square(theirs).sum()
        assert (ours**P).sum() <= (theirs**P).sum()


@pytest.mark.parametrize("tail", TAILS)
def test_the_oracle_lowers_the_norm_that_it_minimizes(tail: str) -> None:
    weight = TAILS[tail](np.random.default_rng(0), (64, 256)).astype(np.float32)
    steps = (0, STEPS)
    first, last = (np.abs(half_quadratic(weight, 4, n, whole=False) - weight) for n in steps)
    assert (last**P).sum() < 0.95 * (first**P).sum()
