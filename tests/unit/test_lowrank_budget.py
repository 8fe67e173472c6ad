"""The choice under a budget against brute force, and its bound."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from onnxslim.passes.lowrank.budget import Option, choose, hull, least_cost


def random_layers(seed: int) -> list[list[Option]]:
    rng = np.random.default_rng(seed)
    return [
        [Option(1.0, 0.0), *(Option(*map(float, rng.random(2))) for _ in range(rng.integers(0, 6)))]
        for _ in range(4)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_plan_lies_between_its_bound_and_the_optimum_is_no_lower(seed: int) -> None:
    layers = random_layers(seed)
    budget = 0.4 * 4
    plans = [
        sum(option.loss for option in taken)
        for taken in product(*layers)
        if sum(option.cost for option in taken) <= budget
    ]
    plan = choose(layers, budget)
    if not plans:
        assert plan is None
        return
    assert plan is not None
    best = min(plans)
    assert plan.cost <= budget
    assert plan.bound <= best + 1e-12
    assert best <= plan.loss + 1e-12
    # the greedy choice is within one step of one layer of the bound, which here is at most 1
    assert plan.loss <= plan.bound + 1


def test_everything_is_kept_where_the_budget_allows_it() -> None:
    layers = random_layers(0)
    plan = choose(layers, 4.0)
    assert plan is not None
    assert plan.loss == 0
    assert plan.chosen == (0, 0, 0, 0)


def test_a_budget_below_the_least_cost_gives_no_plan() -> None:
    layers = [[Option(1, 0), Option(0.5, 1)]]
    assert least_cost(layers) == 0.5
    assert choose(layers, 0.49) is None
    plan = choose(layers, 0.5)
    assert plan is not None
    assert plan.chosen == (1,)


def test_the_hull_leaves_out_what_a_mixture_beats() -> None:
    options = [Option(10, 0), Option(8, 5), Option(5, 4), Option(6, 9), Option(0, 10)]
    assert hull(options) == [0, 2, 4]
