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

    assert best_rate(trial) == best
    assert len(tried) == len(set(tried))
    assert len(tried) <= abs(RATES.index(best) - FIRST) + 3


def test_a_rate_that_gives_no_number_is_not_taken() -> None:
    assert best_rate(lambda rate: math.inf if rate > 1e-4 else 1 / rate) == 1e-4
