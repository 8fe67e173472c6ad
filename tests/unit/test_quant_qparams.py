"""The maths of scales, zero points, weights, biases, ranges and smoothing against slow oracles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxslim.ir import Array
from onnxslim.passes.quant.know.facts import Channels
from onnxslim.passes.quant.know.ranges import Observed, find_range, least_squared_error
from onnxslim.passes.quant.qparams import (
    Affine,
    QParams,
    QWeight,
    asymmetric,
    quantize_bias,
    quantize_weight,
    through,
    widened_for_bias,
    within,
)
from onnxslim.passes.quant.weights.smooth import predicted_error, smoothing
from onnxslim.targets.forms import INT7

BOUNDS = st.floats(-1e4, 1e4, allow_nan=False, width=32)


@given(BOUNDS, BOUNDS)
def test_asymmetric_covers_its_range_and_holds_zero_exactly(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    params = asymmetric(low, high)
    # The zero point is a whole number, which moves either end by at most half a step; float32
    # rounding of the scale adds 255 * 2^-24 of a step.
    slack = params.scale * 0.5001
    assert params.low <= min(low, 0) + slack or params.scale == 1.0
    assert params.high >= max(high, 0) - slack or params.scale == 1.0
    assert params.fake(np.zeros(1))[0] == 0
    assert 0 <= params.zero_point <= 255


def test_a_range_from_zero_has_zero_point_zero() -> None:
    assert asymmetric(0.0, 5.1).zero_point == 0
    assert asymmetric(1.0, 5.1).zero_point == 0  # widened to hold zero
    assert asymmetric(-5.1, -1.0).zero_point == 255


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.0, 1e-44), (-1e-40, 1e-40)])
def test_a_range_without_extent_is_harmless(low: float, high: float) -> None:
    assert asymmetric(low, high) == QParams(1.0, 0)


@given(st.floats(-8, 0, width=32), st.floats(0.125, 8, width=32), BOUNDS, BOUNDS)
def test_within_never_leaves_what_a_clip_lets_through(
    bottom: float, top: float, a: float, b: float
) -> None:
    params = within(bottom, top, min(a, b), max(a, b))
    scale = np.float32(params.scale)
    assert -np.float32(params.zero_point) * scale >= np.float32(bottom)
    assert np.float32(255 - params.zero_point) * scale <= np.float32(top)


def test_within_without_bounds_is_asymmetric() -> None:
    assert within(-np.inf, np.inf, -1.5, 3.0) == asymmetric(-1.5, 3.0)
    assert within(0.0, np.inf, -1.5, 3.0) == asymmetric(0.0, 3.0)


@given(st.floats(0.05, 20), st.floats(-3, 3), st.floats(0.1, 10))
def test_through_gives_integers_that_stand_for_both_ends_of_an_affine_map(
    factor: float, offset: float, reach: float
) -> None:
    x = np.linspace(-reach, reach, 101)
    y = factor * x + offset
    try:
        before, after = through(Affine(factor, offset), float(y.min()), float(y.max()))
    except ValueError:
        assert abs(offset) / factor > 0.98 * reach  # x = 0 is at or beyond the end of the range
        return
    assert before.scale * factor == pytest.approx(after.scale, rel=1e-6)  # float32 rounding
    restored = after.scale * (before.quantize(x).astype(float) - after.zero_point)
    # Half a step for rounding x, half for a zero point that is a whole number, and another half
    # where the ends of the range saturate because of it.
    assert np.abs(restored - y).max() <= 1.51 * after.scale


def test_through_moves_a_large_offset_not_at_all() -> None:
    before, after = through(Affine(0.5, -0.873), -0.9, 3.0)
    steps = (before.zero_point - after.zero_point) * after.scale
    assert steps == pytest.approx(-0.873, rel=1e-6)


def test_through_refuses_a_falling_map() -> None:
    with pytest.raises(ValueError, match="turns the order"):
        through(Affine(-1.0, 0.0), -1.0, 1.0)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_weights_are_symmetric_per_channel(axis: int) -> None:
    weight = np.random.default_rng(0).normal(size=(6, 5, 3)).astype(np.float32)
    quantized = quantize_weight(weight, axis)
    others = tuple(i for i in range(3) if i != axis % 3)
    assert np.abs(quantized.values.astype(int)).max(axis=others).tolist() == [127] * len(
        quantized.scale
    )
    error = np.abs(quantized.dequantized() - weight).max(axis=others)
    assert (error <= quantized.scale * 0.5001).all()  # rounding, and the scale's own in float32


def test_weights_of_seven_bits_and_of_one_scale() -> None:
    weight = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    assert np.abs(quantize_weight(weight, 0, bits=7).values.astype(int)).max() == 63
    assert len(set(quantize_weight(weight, 0, per_channel=False).scale.tolist())) == 1


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = np.zeros((2, 4), np.float32)
    weight[1] = 1
    quantized = quantize_weight(weight, 0)
    assert quantized.scale[0] == 1
    assert (quantized.dequantized() == weight).all()


def test_a_bias_has_the_scale_of_its_products() -> None:
    bias, w_scale = np.array([0.5, -20.0]), np.array([0.01, 0.02], np.float32)
    values, scale = quantize_bias(bias, 0.1, w_scale)
    assert scale == pytest.approx([0.001, 0.002], rel=1e-6)
    assert values.dtype == np.int32
    assert values * scale.astype(float) == pytest.approx(bias, abs=0.0011)  # half a step


def test_a_bias_that_overflows_int32_widens_the_scale_of_its_channel_alone() -> None:
    weight = np.array([[1e-12, -1e-12], [1.0, 0.5]], np.float32)
    quantized = quantize_weight(weight, 0)
    bias = np.array([3.0, 3.0])
    wide = widened_for_bias(quantized, bias, 0.01, weight)
    assert wide.scale[0] > quantized.scale[0]
    assert wide.scale[1] == quantized.scale[1]
    values, scale = quantize_bias(bias, 0.01, wide.scale)
    assert np.abs(values.astype(np.int64)).max() < 2**31 - 1
    # int32 at nearly full range has a step of 3 / 2^31: float32 rounding of the scale rules
    assert values[0] * float(scale[0]) == pytest.approx(3.0, rel=1e-6)
    assert widened_for_bias(quantized, np.zeros(2), 0.01, weight) is quantized


def test_only_channels_with_a_large_bias_are_rounded_again_and_in_few_bits_to_multiples() -> None:
    weight = np.array([[1e-9, -6e-10, 4e-10], [1.0, 0.5, -0.3]], np.float32)
    own = np.array([[8, -56, 24], [63, 1, -19]], np.int8)  # not the nearest
    quantized = QWeight(own, np.array([2e-11, 1 / 63], np.float32), 0, INT7, bits=4)
    wide = widened_for_bias(quantized, np.array([3.0, 3.0]), 1.0, weight)
    assert wide.values[1].tolist() == own[1].tolist()
    times = int(np.gcd.reduce(wide.values[0].astype(int)))
    assert np.abs(wide.values[0] // times).max() <= 7
    np.testing.assert_allclose(wide.dequantized()[0], weight[0], atol=times * wide.scale[0] / 2)


def _observed(x: Array, bins: int = 2048) -> Observed:
    counts, edges = np.histogram(x, bins)
    return Observed(float(x.min()), float(x.max()), counts, float(edges[0]), float(edges[-1]))


@pytest.mark.parametrize("kind", ["student", "laplace", "relu"])
def test_least_squared_error_is_near_the_best_of_all_ranges(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_t(3, 20_000) if kind == "student" else rng.laplace(size=100_000)
    x = np.maximum(x, 0) if kind == "relu" else x
    seen = _observed(x)

    def error(low: float, high: float) -> float:
        params = asymmetric(low, high)
        return float(((x - params.fake(x)) ** 2).mean())

    grid = np.linspace(0.05, 1, 40)
    best = min(error(seen.min * a, seen.max * b) for a in grid for b in grid)
    found = error(*least_squared_error(seen))
    assert found <= error(seen.min, seen.max)
    # the grids differ by up to 1/20 of an end, and the error is flat around its minimum
    assert found <= 1.15 * best


def test_percentile_leaves_the_same_share_out_at_either_end() -> None:
    x = np.random.default_rng(0).normal(size=100_000)
    low, high = find_range(_observed(x), "percentile", 99.0)
    width = (x.max() - x.min()) / 2048  # a bound is an edge of a bin
    assert low == pytest.approx(np.percentile(x, 0.5), abs=2 * width)
    assert high == pytest.approx(np.percentile(x, 99.5), abs=2 * width)


def test_minmax_and_a_constant_tensor_keep_their_extremes() -> None:
    seen = _observed(np.array([-1.0, 2.0, 5.0]))
    assert find_range(seen, "minmax") == (-1.0, 5.0)
    flat = Observed(2.0, 2.0, np.array([7]), 2.0, 2.5)
    assert find_range(flat, "mse") == (2.0, 2.0)


def test_smoothing_lowers_the_real_error_where_one_channel_stands_out() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 32))
    x[:, 3] *= 60
    weight = rng.normal(size=(24, 32))
    channels = Channels(x.min(0), x.max(0), x.mean(0))
    s = smoothing(channels, [weight])
    assert s is not None

    def error(s: Array) -> float:
        xs, ws = x / s, (weight * s).astype(np.float32)
        params = asymmetric(float(xs.min()), float(xs.max()))
        w8: Array = np.transpose(quantize_weight(ws, 0).dequantized())
        rounded: Array = params.fake(xs) @ w8
        return float(np.square(rounded - x @ np.transpose(weight)).sum())

    ones = np.ones(32)
    assert error(s) < 0.1 * error(ones)
    # rounding noise is uniform to a good approximation: the prediction holds within a factor of
    # two, the variance of each channel being guessed from its extremes
    predicted = predicted_error(channels, [weight], ones) * len(x)
    assert 0.5 < error(ones) / predicted < 2


def test_even_channels_are_not_smoothed() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, size=(500, 16))
    channels = Channels(x.min(0), x.max(0), x.mean(0))
    assert smoothing(channels, [rng.normal(size=(8, 16))]) is None


def test_a_dead_channel_does_not_spoil_smoothing() -> None:
    zeros = np.zeros(4)
    channels = Channels(np.array([0, -1, -50, -1.0]), np.array([0, 1, 50, 1.0]), zeros)
    s = smoothing(channels, [np.ones((3, 4))])
    assert s is not None
    assert np.isfinite(s).all()
    assert s[0] == 1
