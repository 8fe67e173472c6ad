"""The predicted signal to noise of each layer, against what the layer's output really loses."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim.analyses.layer_stats import LayerStats
from onnxslim.ir import Array, Model
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.runtime.samples import Feed
from tests.quantizing import build, feeds, outputs, quantize

MATMUL = "net (float[N,64] x) => (float[N,96] y) { [only] y = MatMul(x, w) }"
CONV = (
    "net (float[N,8,12,12] x) => (float[N,16,12,12] y)"
    " { [only] y = Conv <pads = [1, 1, 1, 1]> (x, w, b) }"
)


def correlated(count: int) -> list[Feed]:
    """Rows of 64 numbers that are mixtures of 8, with a mean."""
    rng = np.random.default_rng(5)
    mix = rng.normal(size=(8, 64))

    def one() -> Array:
        rows: Array = rng.normal(size=(32, 8)) @ mix + 0.2 * rng.normal(size=(32, 64)) + 0.3
        return rows.astype(np.float32)

    return [{"x": one()} for _ in range(count)]


def db_about_means(exact: Array, given: Array) -> float:
    """Of an output [rows, channels], about the mean of each channel."""
    error = given - exact
    signal, noise = exact - exact.mean(axis=0), error - error.mean(axis=0)
    return 10 * float(np.log10((signal**2).sum() / (noise**2).sum()))


def test_weights_in_blocks_lose_what_is_predicted() -> None:
    weights, samples = {"w": (64, 96)}, correlated(8)
    before, after = build(MATMUL, weights), build(MATMUL, weights)
    (row,) = quantize(after, samples, scheme="weight", weight_bits=4).layers
    exact, given = (np.concatenate([outputs(m, f)[0] for f in samples]) for m in (before, after))
    measured = 10 * float(np.log10((exact**2).sum() / ((given - exact) ** 2).sum()))
    assert row.predicted_db == pytest.approx(measured, abs=0.2)  # inputs get 8 bits as they run


def test_a_convolution_of_few_bits_loses_what_is_predicted() -> None:
    """Inputs have 8 bits, whose noise is far below that of weights in 4."""
    weights = {"w": (16, 8, 3, 3), "b": (16,)}
    before, after = build(CONV, weights), build(CONV, weights)
    samples = feeds(before, 16)
    done = quantize(after, samples, scheme="int8", weight_bits=4, wide_share=0.0, goal=0.0)
    (row,) = done.layers
    exact, given = (
        np.moveaxis(np.concatenate([outputs(m, f)[0] for f in samples]), 1, -1).reshape(-1, 16)
        for m in (before, after)
    )
    assert row.predicted_db == pytest.approx(db_about_means(exact, given), abs=0.4)


def test_nothing_is_collected_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Min-max ranges need no moments, so that there are none and no prediction."""

    def compute(self: LayerStats, model: Model, analyses: AnalysisManager) -> object:
        raise AssertionError(self)

    monkeypatch.setattr(LayerStats, "compute", compute)
    model = build(CONV, {"w": (16, 8, 3, 3), "b": (16,)})
    (row,) = quantize(
        model, feeds(model, 4), scheme="int8", ranges="minmax", rounding="nearest", smooth="off"
    ).layers
    assert row.predicted_db is None
