"""The maths of metrics and intervals against slow or outside references."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from onnxslim.passes.check.noise import NoiseMeter
from onnxslim.runtime.intervals import paired_drop, wilson
from onnxslim.runtime.metrics import Agreement, Cosine, Top1, classes, cosine

COUNTS = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS)
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    right, count = counts
    low, high = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    # Both evaluate one formula in float64; the clip at 0 and 1 hides rounding of 1e-17.
    assert wilson(right, count) == pytest.approx((float(low), float(high)), abs=1e-12)


@given(COUNTS, st.integers(0, 3000))
def test_paired_drop_holds_the_drop_and_mirrors(counts: tuple[int, int], gained: int) -> None:
    lost, count = counts
    gained = min(gained, count - lost)
    low, high = paired_drop(lost, gained, count)
    # Half a sample more in each cell moves the centre towards 0 by the factor n / (n + 2).
    assert low <= (lost - gained) / (count + 2) <= high
    assert paired_drop(gained, lost, count) == pytest.approx((-high, -low))


def test_paired_drop_covers_as_promised() -> None:
    rng = np.random.default_rng(0)
    chances = [0.80, 0.06, 0.03, 0.11]  # both right, lost, gained, both wrong: a drop of 0.03
    inside = 0
    for _ in range(1000):
        _, lost, gained, _ = (int(n) for n in rng.multinomial(200, chances))
        low, high = paired_drop(lost, gained, 200)
        inside += low <= 0.03 <= high
    # Nominal 95 %; for 1000 trials its standard error is 0.7 points, so 92 % is four of them away.
    assert inside >= 920


ARRAYS = st.lists(
    st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(-1e3, 1e3, width=32)),
    min_size=1,
    max_size=30,
)


@given(st.lists(ARRAYS, min_size=1, max_size=4))
@settings(deadline=None)
def test_noise_added_up_is_noise_of_the_whole(parts: list[list[tuple[float, float]]]) -> None:
    meter = NoiseMeter(atol=0.5, rtol=0.1)
    for part in parts:
        pairs = np.array(part, np.float32)
        meter.add({"y": pairs[:, 0]}, {"y": pairs[:, 1]})
    whole = np.concatenate([np.array(p, np.float32) for p in parts]).astype(np.float64)
    x, error = whole[:, 0], whole[:, 1] - whole[:, 0]
    found = meter.outputs["y"]
    # Sums of at most 120 float64 products in another order: a relative 120 * 2^-53 < 2e-14.
    assert found.signal == pytest.approx(math.fsum(x * x), rel=1e-13)
    assert found.noise == pytest.approx(math.fsum(error * error), rel=1e-13)
    assert found.outside == int((np.abs(error) > 0.5 + 0.1 * np.abs(x)).sum())
    assert found.count == len(x)


@given(st.integers(1, 20), st.integers(2, 5), st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_top1_and_agreement_count_as_a_loop_does(rows: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.normal(size=(2, rows, count)).astype(np.float32)
    labels = rng.integers(0, count, rows)
    top1, agreement = Top1("y"), Agreement("y")
    for i in range(rows):
        feed = {"y": before[i : i + 1]}, {"y": after[i : i + 1]}
        top1.add(*feed, labels[i])
        agreement.add(*feed, None)
    was = [int(row.argmax()) for row in before]
    now = [int(row.argmax()) for row in after]
    score = top1.score()
    assert score.before == sum(w == t for w, t in zip(was, labels, strict=True)) / rows
    assert score.after == sum(n == t for n, t in zip(now, labels, strict=True)) / rows
    assert agreement.score().after == sum(w == n for w, n in zip(was, now, strict=True)) / rows
    assert score.interval is not None
    assert score.interval[0] <= score.after <= score.interval[1]


def test_cosine_of_known_vectors() -> None:
    assert cosine(np.array([1.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(math.sqrt(0.5))
    assert cosine(np.array([1.0, 2.0]), np.array([-2.0, -4.0])) == pytest.approx(-1)
    assert cosine(np.zeros(3), np.zeros(3)) == 1
    assert cosine(np.zeros(3), np.ones(3)) == 0
    metric = Cosine()
    for x in ([1.0, 0.0], [3.0, 4.0]):
        metric.add({"y": np.array(x), "i": np.array([1])}, {"y": np.array([1.0, 0.0])}, None)
    assert metric.score().after == pytest.approx((1 + 0.6) / 2)


def test_classes_of_images_are_on_axis_one() -> None:
    scores = np.zeros((1, 3, 2, 2))
    scores[0, 2, 1, 1] = 1
    assert classes(scores).tolist() == [[[0, 0], [0, 2]]]
    assert classes(np.zeros((1, 2, 3))).shape == (1, 2)
