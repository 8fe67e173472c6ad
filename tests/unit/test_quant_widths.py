"""Layers that keep 8 bits where the others get few."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim.ir import Array, Model
from onnxslim.passes.quant.choose.widths import added, chosen
from onnxslim.passes.quant.quant import Quant
from tests.quantizing import build, feeds, quantize, sqnr_db

SIZES = {"stem": 10, "depthwise": 20, "middle": 300, "head": 670}


def test_most_noise_per_weight_first_within_the_share() -> None:
    noise = {"stem": 0.01, "depthwise": 0.2, "middle": 0.29, "head": 0.5}
    assert chosen(noise, SIZES, 0.02) == {"depthwise"}
    assert chosen(noise, SIZES, 0.03) == {"depthwise", "stem"}
    assert chosen(noise, SIZES, 0.33) == {"depthwise", "stem", "middle"}
    assert chosen(noise, SIZES, 1.0) == set(SIZES)
    assert chosen(noise, SIZES, 0.0) == frozenset()


def test_a_layer_that_does_not_fit_is_passed_over() -> None:
    noise = {"stem": 0.001, "depthwise": 0.01, "middle": 9.0, "head": 0.0}
    assert chosen(noise, SIZES, 0.1) == {"depthwise"}  # the stem has next to no noise


def test_added_noise() -> None:
    assert added(10.0, 80.0) == pytest.approx(0.1, rel=1e-6)
    assert added(10.0, 13.0103) == pytest.approx(0.05, rel=1e-4)
    assert added(21.0, 20.0) == 0.0


def _net() -> Model:
    """A small layer whose inputs differ much in size, so that few bits ruin it, and larger ones."""
    rng = np.random.default_rng(3)
    rough: Array = rng.normal(size=(16, 4, 1, 1)) * np.exp(1.5 * rng.normal(size=(16, 4, 1, 1)))
    return build(
        "net (float[N,4,8,8] x) => (float[N,32,8,8] y)"
        " { a = Conv (x, w) r = Relu(a) b = Conv <pads = [1, 1, 1, 1]> (r, v) s = Relu(b)"
        " y = Conv <pads = [1, 1, 1, 1]> (s, u) }",
        {"w": rough.astype(np.float32), "v": (32, 16, 3, 3), "u": (32, 32, 3, 3)},
    )


def test_the_outputs_gain_and_the_report_counts_the_weights() -> None:
    before, plain, wide = _net(), _net(), _net()
    samples = feeds(before, 8)
    narrow = quantize(plain, samples, scheme="int8", weight_bits=4, goal=0.0, wide_share=0.0)
    result = quantize(wide, samples, scheme="int8", weight_bits=4, goal=0.0, wide_share=0.01)
    assert narrow.stats["weight_bits"] == "4:100.00%"
    share = 64 / (64 + 32 * 16 * 9 + 32 * 32 * 9)
    assert result.stats["weight_bits"] == f"4:{1 - share:.2%} 8:{share:.2%}"
    assert [row.action.split()[0] for row in result.layers] == ["int8", "4-bit", "4-bit"]
    assert sqnr_db(before, wide, samples) > sqnr_db(before, plain, samples) + 0.2


def test_no_layer_is_widened_beyond_the_share() -> None:
    model = _net()
    result = quantize(model, feeds(model, 8), scheme="int8", weight_bits=4, wide_share=0.001)
    assert result.stats["weight_bits"] == "4:100.00%"


def test_a_share_outside_of_its_range() -> None:
    with pytest.raises(ValueError, match=r"wide_share=1\.5, expected 0 to 1"):
        Quant(scheme="int8", weight_bits=4, wide_share=1.5)
