"""Codes and scales fitted to second moments, against slow oracles."""

from __future__ import annotations

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.quant.weight_only.grid import Grid, fitted
from onnxslim.passes.quant.weight_only.refine import error, fit_codes, refitted
from onnxslim.passes.quant.weights.rounding import round_to_grid
from tests.quantizing import rounding_case

MANY = 10**9
"""Samples that say exactly what they say."""


def case(out: int = 8, d: int = 96) -> tuple[Array, Array]:
    weight, _, second = rounding_case(1, out, d)
    return weight[0], second[0]


def test_a_fit_is_better_than_gptq_and_than_the_nearest_codes() -> None:
    weight, second = case()
    codes, grid = fit_codes(weight, 4, 32, second, MANY)
    plain = fitted(weight, 4, 32, np.diagonal(second))
    zero = plain.spread(plain.zero)[None]
    steps = plain.spread(plain.scale)[None].astype(np.float64)
    gptq = round_to_grid(weight[None], steps, second[None], -zero, plain.top - zero)[0] + zero[0]
    ours = error(weight, codes, grid, second).sum()
    assert ours < 0.8 * error(weight, gptq, plain, second).sum()
    assert ours < 0.2 * error(weight, plain.codes(weight), plain, second).sum()
    assert codes.min() >= 0
    assert codes.max() <= 15
    np.testing.assert_array_equal(codes, np.rint(codes))


def test_error_is_the_quadratic_form() -> None:
    weight, second = case(3, 32)
    grid = fitted(weight, 4, 16)
    codes = grid.codes(weight)
    for row, found in enumerate(error(weight, codes, grid, second)):
        dw = weight[row] - grid.values(codes)[row]
        np.testing.assert_allclose(found, dw @ second @ dw, rtol=1e-9)


def test_scales_solve_least_squares() -> None:
    """They meet the normal equations of each row, with the blocks as columns of one matrix."""
    weight, second = case(4, 48)
    grid = fitted(weight, 4, 16)
    centred = grid.codes(weight) - grid.spread(grid.zero)
    found = refitted(weight, centred, grid, second)
    for row in range(4):
        parts: Array = np.zeros((48, 3))
        for b in range(3):
            parts[b * 16 : b * 16 + 16, b] = centred[row, b * 16 : b * 16 + 16]
        left: Array = np.matmul(np.transpose(parts), second)
        right: Array = np.matmul(left, weight[row])
        reached: Array = np.matmul(np.matmul(left, parts), found[row])
        np.testing.assert_allclose(reached, right, atol=1e-5 * np.abs(right).max())


def test_rows_that_are_zero_stay_zero() -> None:
    second = case()[1]
    codes, grid = fit_codes(np.zeros((4, 96)), 4, 32, second, 100)
    assert not grid.values(codes).any()
    codes, grid = fit_codes(case()[0], 4, 32, np.zeros((96, 96)), 0)
    assert isinstance(grid, Grid)
    assert np.isfinite(grid.values(codes)).all()


def test_few_samples_are_believed_less() -> None:
    """On rows of which the samples were few, the damped fit is the better one on other rows."""
    rng = np.random.default_rng(0)
    mix: Array = rng.normal(size=(64, 64)) * np.geomspace(1, 0.05, 64)[:, None]
    second, truth = (_moment(np.matmul(rng.normal(size=(n, 64)), mix)) for n in (24, 4000))
    weight = rng.normal(size=(32, 64))
    damped = error(weight, *fit_codes(weight, 4, 32, second, 24), truth).sum()
    assert damped < error(weight, *fit_codes(weight, 4, 32, second, MANY), truth).sum()


def _moment(rows: Array) -> Array:
    found: Array = np.matmul(np.transpose(rows), rows)
    return found / len(rows)


def test_a_symmetric_grid_keeps_its_middle_and_is_fitted_too() -> None:
    weight, second = case()
    plain = fitted(weight, 4, 32, symmetric=True)
    codes, grid = fit_codes(weight, 4, 32, second, MANY, symmetric=True)
    for found in (plain, grid):
        assert np.array_equal(found.zero, np.full_like(found.zero, 8))
    assert codes.min() >= 0
    assert codes.max() <= 15
    nearest = error(weight, plain.codes(weight), plain, second).sum()
    assert error(weight, codes, grid, second).sum() < 0.7 * nearest
