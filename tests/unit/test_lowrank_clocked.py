"""A choice asked for anew until the clock shows what is wanted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onnxslim.passes.lowrank.clocked import Attempt, corrected


def machine(
    clock: Callable[[float], float], least: float = 0.0
) -> tuple[Callable[[float], Attempt[int]], list[float]]:
    """Choices are expected to take what is asked, but not under `least`; the clock differs."""
    asked: list[float] = []

    def attempt(share: float) -> Attempt[int]:
        asked.append(share)
        expected = max(share, least)
        return Attempt(len(asked), expected, clock(expected))

    return attempt, asked


def test_what_the_clock_confirms_is_taken_at_once() -> None:
    attempt, asked = machine(lambda expected: expected)
    assert corrected(0.5, attempt).took == 0.5
    assert asked == [0.5]


@pytest.mark.parametrize("slope", [0.6, 1.5])
def test_savings_in_proportion_take_one_correction(slope: float) -> None:
    attempt, asked = machine(lambda expected: 1 - slope * (1 - expected))
    found = corrected(0.6, attempt)
    assert found.took == pytest.approx(0.6)
    assert len(asked) == 2


def test_a_budget_below_what_is_expected_to_be_the_least_is_met_if_the_clock_says_so() -> None:
    attempt, asked = machine(lambda expected: 1 - 1.8 * (1 - expected), least=0.665)
    found = corrected(0.5, attempt)
    assert found.took == pytest.approx(0.5)
    assert asked[0] == 0.5  # of which nothing was known but .665, which took .397


def test_where_nothing_is_faster_the_fastest_is_given() -> None:
    attempt, asked = machine(lambda expected: expected + 0.1, least=0.7)
    assert corrected(0.5, attempt).took == pytest.approx(0.8)
    assert len(asked) == 1


def test_of_several_that_are_within_the_slowest_is_taken() -> None:
    took = iter([0.30, 0.42, 0.52, 0.44])
    attempt, _ = machine(lambda _: next(took))
    assert corrected(0.5, attempt).took == 0.44
