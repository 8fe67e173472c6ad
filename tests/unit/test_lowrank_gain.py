"""How much a layer's error counts: what a small enough error of it does to the outputs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim.ir import Array
from onnxslim.passes.lowrank.gain import Probe, filled, gains
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import FeedList
from onnxslim.targets import get_target
from tests.quantizing import build

LINEAR = "g (float[N,8] x) => (float[N,8] y) { y = MatMul(x, w) }"
ROUND = """g (float[N,8] x) => (float[N,8] y) {
    a = MatMul(x, w) b = Mul(a, factor) y = Cos(b) }"""

DOUBLE = """g (float[N,8] x) => (float[N,8] y) {
    d = Cast <to = 11> (x) a = MatMul(d, w) b = Mul(a, factor) c = Sin(b) y = Cast <to = 1> (c) }"""


def gain(body: str, output: str, factor: float, size: float, kind: type = np.float32) -> float:
    """What is found with noise whose power is `size` times the layer's."""
    weights: dict[str, Array] = {"w": np.eye(8, dtype=kind), "factor": np.array(factor, kind)}
    model = build(body, weights)
    rng = np.random.default_rng(0)
    calib = FeedList([{"x": rng.normal(size=(64, 8)).astype(np.float32)} for _ in range(4)])

    def noise(x: Array) -> Array:
        drawn: Array = np.random.default_rng(1).normal(size=x.shape)
        scaled: Array = drawn * (size / np.square(drawn).mean()) ** 0.5
        return scaled.astype(np.float32)

    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor, calib=calib)
        return gains(model, [Probe("x", output, noise, size), None], 512, env)[0]


def test_of_the_last_layer_it_is_one() -> None:
    assert gain(LINEAR, "y", 1.0, 0.03) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("size", [1e-5, 0.03, 0.3])
def test_what_follows_may_be_at_its_limit(size: float) -> None:
    # cos(20 (x + e)) is 20 sin(20 x) e away from what it was: 400 times as much, in power, as e
    assert gain(ROUND, "a", 20.0, size) == pytest.approx(400.0, rel=0.25)


def test_layers_may_compute_in_another_type() -> None:
    assert gain(DOUBLE, "a", 0.01, 0.03, np.float64) == pytest.approx(1.0, rel=0.25)


def test_one_huge_gain_does_not_make_the_others_alike() -> None:
    assert filled([1e4, 1.0, 2.0, 1e-4, None]) == [1e4, 1.0, 2.0, 0.015, 1e4]  # 0.01 of the median
    assert filled([None, None]) == [1.0, 1.0]
