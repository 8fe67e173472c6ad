"""The learning rate is found by climbing from the middle of the table."""

from __future__ import annotations

import math

import pytest

from onnxslim.passes.distill.graph.rates import FIRST, RATES, best_rate


@pytest.mark.parametrize("best", RATES)
def test_the_best_rate_is_found_with_few_trials(best: float) -> None:
    tried: list[float] = []

    def trial(rate: float) -> float:
        tried.append(rate)
        return abs(math.log(rate / best))

    assert best_rate(trial, start=0.1) == best
    assert len(tried) == len(set(tried))
    assert len(tried) <= abs(RATES.index(best) - FIRST) + 3


@pytest.mark.parametrize(("start", "found"), [(0.5, 1e-3), (2.0, 3e-3)])
def test_the_next_one_up_is_taken_where_it_got_better_too(start: float, found: float) -> None:
    assert best_rate(lambda rate: abs(math.log10(rate / 1e-3)) + 0.1, start) == found


def test_a_rate_that_gives_no_number_is_not_taken() -> None:
    assert best_rate(lambda rate: math.inf if rate > 1e-4 else 1 / rate, start=1e9) == 1e-4
