"""Errors of two models on the same samples: what is more than chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxslim.analyses.distance import Distance
from onnxslim.analyses.paired import errs_less
from onnxslim.ir import Array


def errors(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(0.5, 1.5, count)


def test_a_gain_that_all_samples_share_is_more_than_chance() -> None:
    before = errors(40)
    assert errs_less(0.9 * before, before, 5)
    assert not errs_less(before, 0.9 * before, 5)


def test_a_mean_that_one_run_of_neighbours_lowers_is_chance() -> None:
    before, after = errors(40), errors(40)
    after[:12] *= 0.3
    after[12:] *= 1.05
    assert after.mean() < before.mean() - 0.1
    assert not errs_less(after, before, 5)


def test_without_a_difference_nothing_is_said_to_be_better_more_often_than_one_time_in_40() -> None:
    """Of 2,000 a share of .025 is 50; 3.5 of its standard deviation of 7 are 24."""
    found = sum(errs_less(errors(50, 2 * i), errors(50, 2 * i + 1), 5) for i in range(2000))
    assert 26 <= found <= 74


@pytest.mark.parametrize("count", [0, 1])
def test_one_sample_proves_nothing(count: int) -> None:
    assert not errs_less(np.zeros(count), np.ones(count), 5)


def test_equal_errors_and_what_is_no_number_are_not_less() -> None:
    before = errors(20)
    assert not errs_less(before, before, 5)
    assert not errs_less(np.where(np.arange(20) == 3, np.nan, 0.1 * before), before, 5)


def test_errors_by_feed_count_a_long_text_as_much_as_a_short_one() -> None:
    seen = Distance()
    seen.add({"y": np.ones((1, 100))}, {"y": np.full((1, 100), 1.5)})
    seen.add({"y": np.ones((1, 2))}, {"y": np.zeros((1, 2))})
    by_feed = seen.by_feed()
    assert by_feed is not None
    assert by_feed == pytest.approx([0.25, 1.0])
    assert seen.value() == pytest.approx((0.25 * 100 + 2) / 102)


def test_a_feed_whose_output_has_another_shape_counts_for_nothing() -> None:
    seen = Distance()
    seen.add({"y": np.ones(4), "n": np.ones(2, np.int64)}, {"y": np.zeros(4), "n": np.ones(2)})
    assert seen.value() == pytest.approx(1.0)
    seen.add({"y": np.ones(4), "n": np.ones(2, np.int64)}, {"y": np.zeros(3), "n": np.ones(2)})
    assert seen.value() == pytest.approx(1.0)
    found = seen.by_feed()
    assert found is not None
    assert found[1] == 0
    assert Distance().by_feed() is None


def test_a_sequence_counts_for_nothing() -> None:
    parts: Any = [np.ones((2, 3)), np.ones((2, 4))]
    seen = Distance()
    seen.add({"y": np.ones(4), "s": parts}, {"y": np.zeros(4), "s": parts})
    assert seen.value() == pytest.approx(1.0)
    assert seen.by_feed() == pytest.approx([1.0])
