"""Interleaved timing: rounds, noise, and what counts as slower. No test waits for a real speed."""

from __future__ import annotations

import math
import time
from itertools import cycle

import numpy as np
import pytest
from scipy import stats

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.runtime.latency import LatencyResult, interleaved_latency, median_interval
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import Session

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"""
FEED = {"x": np.ones((2, 4), np.float32)}


def test_every_round_times_every_model_and_there_are_at_least_five() -> None:
    model = ir.parse_text(TEXT)
    result = interleaved_latency([model, model, model], FEED, budget_s=0.0)
    assert len(result.rounds) == 5
    assert all(len(times) == 3 and min(times) > 0 for times in result.rounds)
    assert len(result.ms) == 3


def test_rounds_end_early_when_they_are_enough() -> None:
    model = ir.parse_text(TEXT)
    result = interleaved_latency(
        [model, model], FEED, budget_s=60.0, enough=lambda found: len(found.rounds) == 7
    )
    assert len(result.rounds) == 7


def test_with_one_thread_waiting_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Session.run

    def slowed(self: Session, feed: Feed) -> dict[str, ir.Array]:
        time.sleep(2e-3)
        return run(self, feed)

    monkeypatch.setattr(Session, "run", slowed)
    model = ir.parse_text(TEXT)
    assert max(interleaved_latency([model], FEED, 1, budget_s=0.0).ms) < 1
    assert min(interleaved_latency([model], FEED, 2, budget_s=0.0).ms) >= 2


def test_a_feed_that_does_not_fit_is_told() -> None:
    with pytest.raises(RuntimeUnavailable):
        interleaved_latency([ir.parse_text(TEXT)], {}, budget_s=0.0)


def _result(pairs: list[tuple[float, float]]) -> LatencyResult:
    return LatencyResult(tuple(pairs))


def test_slower_by_more_than_noise() -> None:
    steady = _result([(1.0, 1.2), (1.1, 1.32), (0.9, 1.08)] * 10)
    assert steady.ratio() == pytest.approx(1.2)
    assert steady.is_slower()
    assert not steady.is_slower(0, 1)


def test_plain_is_what_few_steady_rounds_show_a_tenth_beside_1() -> None:
    assert _result([(1.0, 0.7)] * 3).is_plain()
    assert _result([(1.0, 1.4)] * 3).is_plain()
    assert not _result([(1.0, 0.5)] * 2).is_plain()
    assert not _result([(1.0, 1.25)] * 3).is_plain()
    assert _result([(1.0, 1.25)] * 4).is_plain()
    assert not _result([(1.0, 1.08)] * 100).is_plain()
    assert not _result([(1.0, 0.6)] * 4 + [(1.0, 1.2)]).is_plain()
    assert not _result([(1.0, 0.7)] * 9 + [(1.0, 1.3)] * 9).is_plain()


@pytest.mark.parametrize("heavy", [False, True])
def test_noise_alone_is_hardly_ever_plain(*, heavy: bool) -> None:
    """Asked after each of 3 to 40 rounds: models that differ by 2 %, each time off by 10 %, and
    with `heavy` one in ten by a factor of two."""
    rng, fooled = np.random.default_rng(0), 0
    for _ in range(400):
        times = np.exp(0.1 * rng.normal(size=(40, 2)) + [0.0, 0.02])
        times *= np.where(heavy & (rng.random((40, 2)) < 0.1), 2.0, 1.0)
        rounds = [(float(one), float(other)) for one, other in times]
        fooled += any(_result(rounds[:n]).is_plain() for n in range(3, 41))
    assert fooled <= 8  # 2 %: one look alone may err in 1 % of cases, at a ratio of 1.1


def test_noise_of_the_machine_is_not_slower() -> None:
    spread = cycle([0.7, 1.4, 0.9, 1.1, 1.3, 0.8, 1.25])
    noisy = _result([(1.0, next(spread)) for _ in range(40)])
    assert not noisy.is_slower()
    assert noisy.noise > 0.1


def test_a_difference_below_the_floor_is_not_slower_however_steady() -> None:
    assert not _result([(1.0, 1.01)] * 100).is_slower()
    assert _result([(1.0, 1.01)] * 100).noise == 0.02


def test_drift_of_the_machine_cancels_in_the_ratio() -> None:
    result = _result([(1.0 + i, 0.5 * (1.0 + i)) for i in range(20)])
    assert result.interval() == (0.5, 0.5)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 20, 101, 400])
def test_median_interval_has_the_largest_rank_allowed(n: int) -> None:
    low, high = median_interval([float(i) for i in range(1, n + 1)], 0.01)
    k = int(low)
    assert high == n + 1 - k
    assert k == 1 or 2 * float(stats.binom.cdf(k - 1, n, 0.5)) <= 0.01
    assert 2 * float(stats.binom.cdf(k, n, 0.5)) > 0.01


def test_median_interval_covers_as_promised() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(500):
        low, high = median_interval(rng.exponential(size=40).tolist(), 0.05)
        inside += low <= math.log(2) <= high
    # At least 95 % by construction; 500 trials miss 0.92 with probability < 0.001.
    assert inside >= 0.92 * 500
