"""Pivoted pairs: the same product in fewer numbers, and what is written for it."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim.passes.lowrank import pivot
from onnxslim.passes.lowrank.schemes import Geometry, Scheme


@pytest.mark.parametrize(("out", "rank", "size"), [(40, 24, 32), (32, 32, 48), (9, 1, 5)])
def test_the_product_stays_and_rows_of_the_second_factor_are_those_of_the_identity(
    out: int, rank: int, size: int
) -> None:
    rng = np.random.default_rng(0)
    second, first = rng.standard_normal((out, rank)), rng.standard_normal((rank, size))
    rows = pivot.pivots(second)
    moved, given = pivot.pivoted(second, first, rows)
    assert len(set(rows.tolist())) == rank
    assert np.array_equal(moved[rows], np.eye(rank))
    assert moved @ given == pytest.approx(second @ first, abs=1e-9)  # float64, well-conditioned


def test_rows_are_chosen_independent() -> None:
    """The first rows are all alike, so that no two of them may be taken."""
    rng = np.random.default_rng(1)
    second = np.concatenate([np.ones((6, 4)), rng.standard_normal((6, 4))])
    rows = pivot.pivots(second)
    assert np.sum(rows < 6) <= 1
    assert np.linalg.matrix_rank(second[rows]) == 4


def test_outputs_are_numbered_by_the_layer_that_has_them() -> None:
    rows = np.array([1, 4, 5])
    assert pivot.direct(rows, 0, 4).tolist() == [-1, 0, -1, -1]
    assert pivot.direct(rows, 4, 3).tolist() == [1, 2, -1]


def test_ranks_are_those_that_save_enough() -> None:
    size, out = 576, 960
    found = pivot.ranks(size, out, 8)
    assert found[0] == 160  # a tenth of the sum of both, rounded up to a multiple
    assert (size - found[-1]) * (out - found[-1]) >= 0.05 * size * out
    assert (size - found[-1] - 8) * (out - found[-1] - 8) < 0.05 * size * out
    assert not pivot.ranks(16, 24, 8)  # too small to be worth two more nodes


def test_cost_is_that_of_both_factors_without_the_identity() -> None:
    shape = Geometry(1, 40, 48, rows=3)
    cost = Scheme("pivoted", pivoted=True).cost(shape, 32)
    assert cost.params == 32 * (48 + 40 - 32)
    assert cost.macs == 3 * cost.params
    assert cost.params < shape.params < 32 * (48 + 40)
