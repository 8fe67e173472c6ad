"""What stays in float for accuracy: the least time for the goal, against all combinations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.search import Search
from onnxslim.passes.quant.place.costs import Costs
from onnxslim.passes.quant.place.mixed_problem import Border, Choice, Problem
from onnxslim.passes.quant.place.noise import power
from onnxslim.passes.quant.place.protection import Protection


@dataclass
class Additive:
    """A model whose noise is the sum of that of its operators, as far as `together` is 1."""

    noise: dict[str, float]
    together: float = 1.0
    asked: set[Choices] = field(default_factory=set[Choices])

    def score(self, choices: Choices) -> float:
        self.asked.add(choices)
        total = sum(v for name, v in self.noise.items() if name not in choices.excluded)
        return -10 * math.log10(max(total * self.together, 1e-12))


def costs(float_ms: Sequence[float], border_ms: float = 0.05) -> Costs:
    """A chain of operators that take 1 ms in int8."""
    int8 = Choice("int8", 1.0, reads=True, writes=True)
    operators = tuple((Choice("float32", ms), int8) for ms in float_ms)
    borders = [Border(i, (i + 1,), border_ms, border_ms) for i in range(len(operators) - 1)]
    problem = Problem(operators, tuple(borders))
    return Costs(tuple(map(str, range(len(operators)))), problem, measured=True)


def protect(
    model: Additive, price: Costs, goal_db: float, share: float = 1.0, sizes: Sequence[int] = ()
) -> frozenset[str]:
    sized = dict(zip(price.names, sizes or [1] * len(price.names), strict=True))
    found = Protection(cast("Search", model), price, model.noise, sized, share)
    return found.protect(Choices(), goal_db).excluded


def named(noise: Sequence[float]) -> dict[str, float]:
    return {str(i): value for i, value in enumerate(noise)}


def test_of_two_that_are_as_noisy_the_cheaper_one_stays_in_float() -> None:
    model = Additive(named([1e-2, 1e-4, 1e-2, 1e-4]))
    assert protect(model, costs([3, 2, 2, 2]), 19.0) == {"2"}


def test_many_small_ones_go_before_a_dear_one() -> None:
    model = Additive(named([6e-3, 2e-3, 2e-3, 2e-3]))
    assert protect(model, costs([30, 2, 2, 2]), 22.0) == {"1", "2", "3"}


def test_the_goal_is_met_though_noise_adds_up_otherwise() -> None:
    for together in (0.3, 3.0):
        model = Additive(named([1e-2, 4e-3, 2e-3, 1e-3, 5e-4, 1e-4]), together)
        goal = model.score(Choices()) + 6
        excluded = protect(model, costs([2] * 6), goal)
        assert model.score(Choices(excluded=excluded)) >= goal
        assert excluded == {"0", "1"}


def test_the_share_of_weights_bounds_what_stays_in_float() -> None:
    model = Additive(named([1e-2, 1e-3, 1e-3, 1e-3]))
    sizes = [90, 4, 4, 4]
    assert protect(model, costs([2] * 4), 24.0, 1.0, sizes) >= {"0"}
    assert protect(model, costs([2] * 4), 24.0, 0.1, sizes) == frozenset()  # gains too little


def test_a_goal_out_of_reach_is_neared_while_that_gains_a_decibel() -> None:
    model = Additive({**named([1e-2, 1e-5]), "always": 1e-3})
    excluded = protect(model, costs([2, 2]), 50.0)
    assert "0" in excluded
    hopeless = Additive({**named([1e-5, 1e-5]), "always": 1e-3})
    assert protect(hopeless, costs([2, 2]), 50.0) == frozenset()


def quieter(
    model: Additive, price: Costs, aim_db: float, goal_db: float = 0.0, clock: float = 1.0
) -> frozenset[str]:
    sizes = dict.fromkeys(price.names, 1)
    tried = Protection(cast("Search", model), price, model.noise, sizes, 1.0)
    found = tried.protect(Choices(), goal_db)
    return tried.quieter(Choices(), found, aim_db, lambda _one, _two, most: clock <= most).excluded


def test_the_aim_is_bought_with_a_tenth_of_the_time_at_most() -> None:
    model = Additive(named([4e-2, 1e-3, *[1e-4] * 8]))
    assert quieter(model, costs([1.1, 9, *[9] * 8], 0.01), 25.0) == {"0"}
    assert quieter(model, costs([3.0, 9, *[9] * 8], 0.01), 25.0) == frozenset()  # a fifth more


def test_the_clock_has_the_last_word() -> None:
    model, price = Additive(named([4e-2, 1e-3, *[1e-4] * 8])), costs([1.1, 9, *[9] * 8], 0.01)
    assert quieter(model, price, 25.0, clock=1.1) == {"0"}
    assert quieter(model, price, 25.0, clock=1.2) == frozenset()


def test_an_aim_that_is_met_or_a_decibel_away_changes_nothing() -> None:
    model = Additive(named([1e-2, 1e-3, *[1e-2] * 8]))  # 10.4 dB; the first is worth 0.5 dB
    assert quieter(model, costs([1.1] * 2 + [9] * 8, 0.01), 20.0) == frozenset()
    assert quieter(Additive(named([1e-2, 1e-3])), costs([1.1, 1.1]), 15.0) == frozenset()


def test_the_aim_adds_to_what_the_goal_needs() -> None:
    model = Additive(named([1e-1, 4e-2, 4e-2, *[1e-3] * 7]))
    price = costs([1.5, 1.2, 9, *[9] * 7], 0.01)
    assert quieter(model, price, 10.0, 10.0) == {"0"}
    assert quieter(model, price, 20.0, 10.0) == {"0", "1"}


@settings(max_examples=60, deadline=None)
@given(
    noise=st.lists(st.sampled_from([1e-2, 5e-3, 2e-3, 1e-3, 1e-4, 1e-5]), min_size=2, max_size=7),
    factors=st.lists(st.sampled_from([1.5, 2.0, 3.0, 6.0]), min_size=7, max_size=7),
    more=st.sampled_from([1.0, 3.0, 6.0, 9.0]),
)
def test_near_the_best_of_all_in_few_trials(
    noise: list[float], factors: list[float], more: float
) -> None:
    price, model = costs(factors[: len(noise)]), Additive(named(noise))
    goal = model.score(Choices()) + more
    excluded = protect(model, price, goal)
    assert len(model.asked) < 12 + len(noise)
    assert model.score(Choices(excluded=excluded)) >= goal
    every = (frozenset(c) for n in range(len(noise) + 1) for c in combinations(price.names, n))
    fits = [x for x in every if model.score(Choices(excluded=x)) >= goal]
    best = min(price.problem.ms(price.chosen(x)) for x in fits)
    whole = price.problem.ms(price.chosen(()))
    added = price.problem.ms(price.chosen(excluded)) - whole
    assert added <= 1.5 * (best - whole) + 0.2  # the goal may be passed by 0.3 dB, by borders


def test_power_is_that_of_noise_over_signal() -> None:
    assert power(20.0) == pytest.approx(0.01)
    assert power(-math.inf) == math.inf
