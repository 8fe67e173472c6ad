"""Precisions by cost and noise: against all combinations, with borders, within limits."""

from __future__ import annotations

from itertools import product
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxslim.passes.quant.place import mixed
from onnxslim.passes.quant.place.mixed import least_noise, least_time
from onnxslim.passes.quant.place.mixed_greedy import descend
from onnxslim.passes.quant.place.mixed_problem import Border, Choice, Limits, Need, Problem


def operator(
    float_ms: float, int8_ms: float, noise: float, size: float = 0.0
) -> tuple[Choice, ...]:
    float32 = Choice("float32", float_ms, size=size)
    return float32, Choice("int8", int8_ms, noise, reads=True, writes=True)


def chain(operators: list[tuple[Choice, ...]], border_ms: float) -> Problem:
    """Each reads what the one before makes; the first reads an input, an output is read last."""
    last = len(operators) - 1
    between = [Border(i, (i + 1,), border_ms, border_ms) for i in range(last)]
    ends = [Border(None, (0,), border_ms, border_ms), Border(last, (), border_ms, border_ms, True)]
    return Problem(tuple(operators), (*between, *ends))


def best(problem: Problem, limits: Limits, quiet: bool) -> float | None:
    """By trying all."""
    cost = problem.noise if quiet else problem.ms
    every = product(*(range(len(choices)) for choices in problem.operators))
    return min((cost(chosen) for chosen in every if limits.hold(problem, chosen)), default=None)


def names(problem: Problem, chosen: tuple[int, ...]) -> list[str]:
    return [choice.precision for choice in problem.picked(chosen)]


def test_what_is_slower_in_int8_stays_in_float_where_that_pays_for_its_borders() -> None:
    layers = [operator(10, 3, 0), operator(2, 6, 0), operator(10, 3, 0)]
    cheap, dear = chain(layers, 1.0), chain(layers, 3.0)
    assert names(cheap, least_time(cheap).chosen) == ["int8", "float32", "int8"]  # type: ignore[union-attr]
    assert names(dear, least_time(dear).chosen) == ["int8", "int8", "int8"]  # type: ignore[union-attr]


def test_the_noise_is_removed_where_it_costs_least() -> None:
    problem = chain([operator(9, 3, 0.5), operator(4, 3, 0.4), operator(9, 3, 0.1)], 0.5)
    found = least_time(problem, noise=0.7)
    assert found is not None
    assert names(problem, found.chosen) == ["int8", "float32", "int8"]
    assert found.noise == pytest.approx(0.6)
    assert found.gap == pytest.approx(0, abs=1e-4)


def test_neighbours_in_float_share_their_borders() -> None:
    quiet, noisy = operator(9, 3, 0), operator(4, 3, 0.5)
    problem = chain([quiet, noisy, noisy, quiet, noisy, quiet], 2.0)
    found = least_time(problem, noise=0.5)
    assert found is not None
    expected = ["int8", "float32", "float32", "int8", "int8", "int8"]
    assert names(problem, found.chosen) == expected


def test_a_third_choice_is_taken_where_it_is_best() -> None:
    float32, int8 = operator(9, 3, 1.0)
    problem = Problem(((float32, int8, Choice("weight", 5, 0.1)),))
    assert names(problem, least_time(problem, noise=0.5).chosen) == ["weight"]  # type: ignore[union-attr]
    assert names(problem, least_noise(problem, ms=4).chosen) == ["int8"]  # type: ignore[union-attr]


def test_limits_that_nothing_keeps_to_have_no_solution() -> None:
    problem = Problem((operator(9, 3, 1.0, size=5), operator(9, 3, 1.0, size=5)))
    assert least_time(problem, noise=0.5, size=5) is None
    assert least_time(problem, noise=0, size=10) is not None
    assert least_noise(problem, ms=5) is None


def test_what_needs_others_in_int8_stays_in_float_without_them() -> None:
    layer, add = operator(9, 10, 0), operator(4, 1, 0)
    alone = Problem((layer, add), (), (Need(1, (0,)),))
    assert names(alone, least_time(Problem((layer, add))).chosen) == ["float32", "int8"]  # type: ignore[union-attr]
    assert names(alone, least_time(alone).chosen) == ["int8", "int8"]  # type: ignore[union-attr]
    assert names(alone, least_time(alone, noise=0).chosen) == ["int8", "int8"]  # type: ignore[union-attr]


def test_nothing_to_choose_is_solved() -> None:
    found = least_time(Problem(()))
    assert found is not None
    assert found.chosen == ()


_parts = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5, 7.0])


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    count = draw(st.integers(1, 6))
    flag = st.booleans()
    choice = st.builds(Choice, st.just("?"), _parts, _parts, _parts, flag, flag)
    operators = [tuple(draw(st.lists(choice, min_size=1, max_size=3))) for _ in range(count)]
    index = st.integers(0, count - 1)
    readers = st.lists(index, unique=True, max_size=3).map(tuple)
    border = st.builds(Border, st.none() | index, readers, _parts, _parts, flag)
    need = st.builds(Need, index, st.lists(index, unique=True, max_size=2).map(tuple))
    borders = draw(st.lists(border, max_size=6, unique=True))
    return Problem(tuple(operators), tuple(borders), tuple(draw(st.lists(need, max_size=3))))


@settings(max_examples=150, deadline=None)
@given(problem=problems(), limit=_parts, size=_parts | st.just(inf), quiet=st.booleans())
def test_equal_to_the_best_of_all(problem: Problem, limit: float, size: float, quiet: bool) -> None:
    limits = Limits(inf, size, limit * 3) if quiet else Limits(limit * 2, size, inf)
    expected = best(problem, limits, quiet)
    solve = least_noise(problem, limit * 3, size) if quiet else least_time(problem, limit * 2, size)
    if expected is None:
        assert solve is None
    else:
        assert solve is not None
        assert limits.hold(problem, solve.chosen)
        reached = solve.noise if quiet else solve.ms
        assert reached == pytest.approx(expected, rel=1e-3, abs=1e-6)
        assert solve.bound <= expected * (1 + 1e-6) + 1e-6


@settings(max_examples=100, deadline=None)
@given(problem=problems(), limit=_parts)
def test_greedy_keeps_to_the_limits_and_cannot_beat_the_best(
    problem: Problem, limit: float
) -> None:
    limits = Limits(limit * 2, inf, inf)
    chosen, expected = descend(problem, limits, quiet=False), best(problem, limits, False)
    if chosen is not None:
        assert expected is not None
        assert limits.hold(problem, chosen)
        assert problem.ms(chosen) >= expected - 1e-9


def test_many_operators_are_chosen_greedily_and_the_gap_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers = [operator(9 + i % 5, 3, 0.1 + 0.01 * (i % 7)) for i in range(60)]
    problem = chain(layers, 0.2)
    exact = least_time(problem, noise=3.0)
    monkeypatch.setattr(mixed, "LARGEST", 10)
    found = least_time(problem, noise=3.0)
    assert found is not None
    assert exact is not None
    assert found.noise <= 3.0
    assert found.gap > 0.5  # nothing is known but that time is not negative
    assert exact.ms <= found.ms <= 1.1 * exact.ms


def test_a_large_model_is_solved_in_time() -> None:
    layers = [operator(1 + (i * 37) % 11, 1, ((i * 53) % 17 + 1) * 1e-4) for i in range(600)]
    problem = chain(layers, 0.3)
    found = least_time(problem, noise=0.3)
    assert found is not None
    assert found.noise <= 0.3 * (1 + 1e-6)
    assert found.gap < 0.01
