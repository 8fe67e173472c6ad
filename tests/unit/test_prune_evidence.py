"""What samples held out say of a fit, and what little they leave of it where they are few."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim.analyses.held_out import split
from onnxslim.analyses.moments import Moments, moments_of
from onnxslim.ir import Array
from onnxslim.passes.prune.evidence import (
    SHARES,
    about,
    fitted_weight,
    power,
    share_of,
    shrunk,
)
from onnxslim.passes.prune.score import Consumer, greedy


def rows(count: int, seed: int, size: int = 24) -> Array:
    """Rows of mixed signals; every seed mixes them alike."""
    mixing = np.random.default_rng(0).normal(size=(size, size)) * np.linspace(0.1, 2, size)
    return np.random.default_rng(seed).normal(size=(count, size)) @ mixing + 1


def moments(values: Array) -> Moments:
    return moments_of(values[None].astype(np.float32))


@pytest.mark.parametrize(
    ("count", "runs"), [(9, 2), (20, 2), (64, 2), (130, 3), (200, 5), (512, 5)]
)
def test_whole_runs_of_neighbours_are_held_out(count: int, runs: int) -> None:
    kept, out = split(count)
    assert sorted(kept + out) == list(range(count))
    assert len(out) == pytest.approx(count / 5, rel=0.3)
    assert 1 + int((np.diff(out) > 1).sum()) == runs


def test_of_eight_views_of_each_of_eight_photos_whole_photos_are_held_out() -> None:
    kept, out = split(64)
    assert not {i // 8 for i in kept} & {i // 8 for i in out}


def test_of_few_samples_none_is_held_out() -> None:
    assert split(7) == (list(range(7)), [])
    assert split(8) == ([0, 1, 2, 4, 5, 6], [3, 7])


@pytest.mark.parametrize("count", [300, 20_000])
def test_some_of_many_lie_on_the_side_where_they_lie_among_all(count: int) -> None:
    kept, out = split(count)
    some, judges = split(count, 256)
    assert len(some) + len(judges) == 256
    assert set(some) <= set(kept)
    assert set(judges) <= set(out)


def test_what_is_not_held_out_of_long_runs_is_fitted_to() -> None:
    _, out = split(20_000)
    kept, middles = split(20_000, most_out=256)
    assert sorted(kept + middles) == list(range(20_000))
    assert len(middles) == 255
    assert set(middles) <= set(out)
    assert 1 + int((np.diff(middles) > 1).sum()) == 5


def test_drawn_to_the_diagonal_variances_stay() -> None:
    covariance = moments(rows(400, 1)).covariance()[0]
    found = shrunk(covariance, 0.3)
    assert np.diagonal(found) == pytest.approx(np.diagonal(covariance), rel=1e-3)
    assert found[0, 1] == pytest.approx(0.7 * covariance[0, 1])


def test_moments_about_another_centre() -> None:
    values, centre = rows(300, 1), np.full(24, 0.5)
    apart = values - centre
    wanted: Array = np.matmul(np.transpose(apart), apart) / len(values)
    assert about(moments(values), centre) == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_the_fewer_the_rows_the_less_is_made_up_for() -> None:
    weight = np.random.default_rng(5).normal(size=(6, 24))
    lost = np.arange(24) % 3 == 0
    held = moments(rows(4000, 9))
    found = [
        share_of(weight, (seen := moments(rows(count, 1))), held, lost, seen.mean[0])
        for count in (8, 30, 4000)
    ]
    assert found[0] > found[2]
    assert sorted(found, reverse=True) == found
    assert found[2] == SHARES[0]


def test_the_share_chosen_errs_least_on_other_samples() -> None:
    weight = np.random.default_rng(5).normal(size=(6, 24))
    lost, fit, held = np.arange(24) % 2 == 0, moments(rows(20, 1)), moments(rows(4000, 9))
    best = share_of(weight, fit, held, lost, fit.mean[0])

    def loss(share: float) -> float:
        fitted = fitted_weight(weight, shrunk(fit.covariance()[0], share), lost)
        return power(weight - fitted, about(held, fit.mean[0]))

    assert loss(best) == min(loss(share) for share in SHARES)


def test_losses_are_counted_on_the_samples_held_out() -> None:
    weight = np.random.default_rng(5).normal(size=(6, 24))
    fit, held = moments(rows(26, 1)), moments(rows(4000, 9))
    spread = shrunk(fit.covariance()[0], SHARES[0])
    blocks: list[Array] = [np.array([i]) for i in range(24)]
    judge = about(held, fit.mean[0])
    _, believed = greedy([Consumer(weight, spread, blocks)], 24, 12)
    order, judged = greedy([Consumer(weight, spread, blocks, judge)], 24, 12)
    lost = np.isin(np.arange(24), order)
    actual = power(weight - fitted_weight(weight, spread, lost), judge) / power(weight, judge)
    assert judged[-1] == pytest.approx(actual, rel=1e-6)
    assert judged[-1] > 2 * believed[-1]


def test_a_ranking_in_float32_is_that_in_float64_where_inputs_are_nearly_the_same() -> None:
    rng = np.random.default_rng(3)
    signals = rng.normal(size=(4000, 12)) @ rng.normal(size=(12, 96))
    fit = moments(signals + 1e-3 * rng.normal(size=(4000, 96)))  # 12 directions of 96 have power
    weight = rng.normal(size=(8, 96))
    spread = shrunk(fit.covariance()[0], SHARES[0])
    blocks: list[Array] = [np.arange(3 * i, 3 * i + 3) for i in range(32)]
    exact, wanted = greedy([Consumer(weight, spread, blocks)], 32, 24)
    order, found = greedy([Consumer(weight, spread.astype(np.float32), blocks)], 32, 24)
    assert len(set(order) & set(exact)) >= 22
    assert found[-1] == pytest.approx(wanted[-1], rel=0.05)
