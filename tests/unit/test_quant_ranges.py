"""Ranges by entropy and by the output's error, against slow oracles, and what they are good for."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim.analyses.linear import Linear, linear
from onnxslim.analyses.tensor_stats import tensor_stats
from onnxslim.ir import Array
from onnxslim.passes.quant.know.entropy import LEVELS, divergences, entropy_threshold, magnitudes
from onnxslim.passes.quant.know.importance import bin_importance, importance
from onnxslim.passes.quant.know.ranges import Observed, find_range
from onnxslim.passes.quant.qparams import asymmetric
from tests.quantizing import build, feeds, outputs, quantize, sqnr_db


def divergence(counts: Array, kept: int, levels: int) -> float:
    """D(P || Q) as the paper's pseudocode has it."""
    p = counts[:kept].astype(float)
    p[-1] += counts[kept:].sum()
    q, filled, width = np.zeros(kept), p > 0, kept // levels
    for level in range(levels):
        bins = slice(level * width, kept if level == levels - 1 else (level + 1) * width)
        if filled[bins].any():
            share = counts[:kept][bins].sum() / filled[bins].sum()
            q[bins] = np.where(filled[bins], share, 0)
    p, q = p / p.sum(), q / q.sum()
    if (q[p > 0] == 0).any():
        return np.inf
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


@pytest.mark.parametrize(("bins", "levels"), [(130, 16), (700, 128), (513, 256)])
def test_divergences_are_those_of_the_pseudocode(bins: int, levels: int) -> None:
    x = np.abs(np.random.default_rng(bins).standard_t(3, 5000))
    counts = np.histogram(x, bins, (0, x.max()))[0]
    ends = np.arange(levels, bins + 1)
    slow = [divergence(counts, int(end), levels) for end in ends]
    # sums of at most 700 float64 terms of size about 1 in another order
    np.testing.assert_allclose(divergences(counts.astype(float), ends, levels), slow, atol=1e-12)


def test_entropy_cuts_a_long_tail_and_keeps_what_is_even() -> None:
    even = np.full(2048, 7)
    assert entropy_threshold(even) > 2000
    tailed = (1e4 * np.exp(-np.arange(2048) / 60)).astype(np.int64)
    tailed[2047] = 1
    assert LEVELS <= entropy_threshold(tailed) < 600
    assert entropy_threshold(np.ones(40)) == 40  # fewer bins than levels: all of them


def test_magnitudes_fold_both_signs_onto_each_other() -> None:
    counts = np.array([1, 2, 3, 4, 5])  # of [-1, 1.5) in steps of a half
    np.testing.assert_array_equal(magnitudes(counts, -1.0, 0.5), [2 + 3, 1 + 4, 5])


def test_entropy_ranges_are_even_about_zero_as_far_as_the_numbers_reach() -> None:
    x = np.random.default_rng(0).standard_t(3, 50_000).clip(-2, None)
    low, high = find_range(observed(x), "entropy")
    assert low == -2.0
    assert 2 < high < x.max() / 2


def observed(x: Array) -> Observed:
    stats = tensor_stats(x.reshape(1, -1), -1)
    bins = stats.histogram
    return Observed(stats.min, stats.max, bins.counts, bins.low, bins.high)


LAYERS = {
    "net (float[1,6,9,9] x) => (float[1,4,A,B] y) { y = Conv <strides = [2, 1]> (x, w) }": (
        (4, 6, 3, 3)
    ),
    "net (float[1,6,9,9] x) => (float[1,4,A,B] y) { y = Conv <group = 2> (x, w) }": (4, 3, 3, 3),
    "net (float[1,6] x) => (float[1,4] y) { y = MatMul(x, w) }": (6, 4),
    "net (float[1,6] x) => (float[1,4] y) { y = Gemm <transB = 1, alpha = 0.5> (x, w) }": (4, 6),
}


@pytest.mark.parametrize(("body", "shape"), LAYERS.items())
def test_importance_is_the_power_of_the_output_for_one_number_wrong(
    body: str, shape: tuple[int, ...]
) -> None:
    model = build(body, {"w": shape})
    found = importance(layer_of(build(body, {"w": shape})))
    assert found.shape == (6,)
    for channel in range(6):
        x = np.zeros([d if isinstance(d, int) else 1 for d in model.graph.inputs[0].shape or ()])
        spots = [(0, channel, row, column) for row in (4, 5) for column in (4,)]
        powers: list[float] = []
        for spot in spots if x.ndim == 4 else [(0, channel)]:
            wrong = x.astype(np.float32)
            wrong[spot] = 1
            powers.append(float(np.square(outputs(model, {"x": wrong})[0], dtype=float).sum()))
        # a stride of 2 lets a number meet only the odd or the even rows of the window
        expected = sum(powers) if "strides" in body else powers[0]
        assert found[channel] == pytest.approx(expected, rel=1e-5)  # float32 sums of 36 products


def layer_of(model: object) -> Linear:
    found = linear(next(iter(model.graph)))  # type: ignore[attr-defined]
    assert isinstance(found, Linear)
    return found


def test_bin_importance_is_the_mean_over_the_channels_that_reach_a_bin() -> None:
    rng = np.random.default_rng(0)
    low, high, of = -rng.uniform(0, 4, 20), rng.uniform(0, 4, 20), rng.uniform(1, 2, 20)
    step = 0.25
    centers = np.arange(-5, 5, step) + step / 2
    slow: list[float] = []
    for center in centers:
        reach = (low <= center + step / 2) & (high >= center - step / 2)
        slow.append(float(of[reach].mean()) if reach.any() else 0.0)
    np.testing.assert_allclose(bin_importance(centers, step, low, high, of), slow, rtol=1e-12)


def loud_but_idle() -> tuple[Array, Array]:
    """Rows whose first channel is ten times as wide, and a weight that hardly reads it."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4096, 8)).astype(np.float32)
    x[:, 0] *= 10
    w = rng.normal(size=(8, 8)).astype(np.float32)
    w[0] *= 0.003
    return x, w


def test_output_ranges_lower_the_outputs_error_where_a_loud_channel_is_hardly_read() -> None:
    x, w = loud_but_idle()
    body = "net (float[N,8] x) => (float[N,8] y) { y = MatMul(x, w) }"
    errors = {}
    for method in ("mse", "output"):
        model = build(body, {"w": w})
        result = quantize(model, [{"x": x}], ranges=method, smooth="off", rounding="nearest")
        assert result.stats["ranges"] == method
        exact, found = x.astype(float) @ w, outputs(model, {"x": x})[0]
        errors[method] = float(np.square(exact - found).mean())
    assert errors["output"] < errors["mse"] / 2


def test_auto_takes_output_ranges_where_they_are_best() -> None:
    x, w = loud_but_idle()
    model = build("net (float[N,8] x) => (float[N,8] y) { y = MatMul(x, w) }", {"w": w})
    result = quantize(model, [{"x": x}], smooth="off", goal=60.0)
    assert result.stats["ranges"] == "output"


@pytest.mark.parametrize("method", ["entropy", "output"])
def test_both_run_on_a_convolution_with_its_relu(method: str) -> None:
    body = (
        "net (float[N,8,12,12] x) => (float[N,16,A,B] y) { a = Conv(x, wa) r = Relu(a)"
        " y = Conv(r, wb) }"
    )
    weights = {"wa": (16, 8, 3, 3), "wb": (16, 16, 3, 3)}
    model, before = build(body, weights), build(body, weights)
    samples = feeds(model, 8)
    assert quantize(model, samples, ranges=method).stats["ranges"] == method
    # entropy keeps 128 levels of normal numbers: far below the 40 dB of 8 bits, far above none
    assert sqnr_db(before, model, samples) > 10


def test_a_scale_for_a_range_of_output_covers_zero() -> None:
    x, _ = loud_but_idle()
    low, high = find_range(observed(np.abs(x)), "output")
    assert asymmetric(low, high).zero_point == 0
