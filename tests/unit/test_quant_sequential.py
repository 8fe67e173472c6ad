"""Layers rounded for what the layers before them leave: moments of pairs, least squares, gain."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear
from onnxslim.analyses.observe import Sampling
from onnxslim.ir import Array, Model
from onnxslim.passes.quant import steps
from onnxslim.passes.quant.choose import sequential
from onnxslim.passes.quant.know.paired import Looking, Paired, Reader, paired, targets
from onnxslim.passes.quant.qparams import QParams
from onnxslim.passes.quant.weights.asymmetric import moved
from onnxslim.runtime.samples import FeedList
from tests.quantizing import build, feeds, quantize, sqnr_db


def _pairs(n: int = 4000) -> tuple[Array, Array, Array]:
    """Rows [n, d], what is left of them [n, d], and a weight [out, d]."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 6)) @ rng.normal(size=(6, 6)) + rng.normal(size=6)
    seen = 0.8 * x + 0.2 * rng.normal(size=x.shape) + 0.3
    return x, seen, rng.normal(size=(5, 6))


def _moments(x: Array, seen: Array, weight: Array, split: bool = True) -> Paired:
    y: Array = x @ np.transpose(weight)
    a: Array = seen - seen.mean(axis=0)
    b: Array = y - y.mean(axis=0)
    n = len(x) // 2
    parts = (slice(n), slice(n, None)) if split else ()
    return Paired(
        seen.mean(axis=0)[None],
        (np.transpose(a) @ a / len(x))[None],
        y.mean(axis=0)[None],
        (np.transpose(b) @ a / len(x))[None],
        tuple(_moments(x[part], seen[part], weight, split=False) for part in parts),
    )


def _error(x: Array, seen: Array, weight: Array, found: Array) -> float:
    """Of the outputs, with the best bias."""
    error: Array = x @ np.transpose(weight) - seen @ np.transpose(found)
    return float(((error - error.mean(axis=0)) ** 2).mean())


def _least_squares(a: Array, b: Array) -> Array:
    return np.asarray(np.linalg.pinv(a) @ b)


def test_the_moved_weight_is_near_the_least_squares() -> None:
    x, seen, weight = _pairs()
    found = moved(weight[None], _moments(x, seen, weight))[0]
    y: Array = (x - x.mean(axis=0)) @ np.transpose(weight)
    best: Array = np.transpose(_least_squares(seen - seen.mean(axis=0), y))
    least = _error(x, seen, weight, best)
    assert least <= _error(x, seen, weight, found) < 1.02 * least  # the ridge costs a little
    assert _error(x, seen, weight, found) < 0.5 * _error(x, seen, weight, weight)


def test_a_weight_that_few_samples_determine_badly_stays_nearer() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4000, 40))
    seen, weight = x + 0.3 * rng.normal(size=x.shape), rng.normal(size=(3, 40))
    few = moved(weight[None], _moments(x[:30], seen[:30], weight))[0]
    assert _error(x, seen, weight, few) < 1.1 * _error(x, seen, weight, weight)
    plain: Array = np.transpose(_least_squares(seen[:30], x[:30] @ np.transpose(weight)))
    assert _error(x, seen, weight, few) < 0.5 * _error(x, seen, weight, plain)


def test_without_halves_nothing_moves() -> None:
    x, seen, weight = _pairs()
    assert (moved(weight[None], _moments(x, seen, weight, split=False))[0] == weight).all()


def test_nothing_moves_where_the_inputs_are_those_of_the_float_model() -> None:
    x, _, weight = _pairs()
    assert moved(weight[None], _moments(x, x, weight))[0] == pytest.approx(weight, abs=1e-9)


def test_about_zero_and_divided() -> None:
    x, seen, weight = _pairs()
    pair = _moments(x, seen, weight)
    assert pair.about_zero().covariance[0] == pytest.approx(np.transpose(seen) @ seen / len(x))
    assert pair.about_zero().cross[0] == pytest.approx(weight @ np.transpose(x) @ seen / len(x))
    s = np.arange(1.0, 7.0)
    other = _moments(x, seen / s, weight)
    for name in ("mean", "covariance", "target", "cross"):
        one, two = getattr(pair.divided(s), name), getattr(other, name)
        assert np.allclose(one, two)
        assert np.allclose(pair.divided(s).halves[1].mean, other.halves[1].mean)


@pytest.mark.parametrize("groups", [1, 4])
def test_pairs_of_a_convolution_are_those_of_its_columns(groups: int) -> None:
    body = (
        "net (float[N,4,6,6] x) => (float[N,8,4,4] y)"
        f" {{ r = Relu(x) y = Conv <kernel_shape = [3, 3], group = {groups}> (r, w) }}"
    )
    exact = build(body, {"w": (8, 4 // groups, 3, 3)})
    rough = build(body.replace("Relu", "Abs"), {"w": (8, 4 // groups, 3, 3)})
    layer = linear(list(exact.graph)[-1])
    assert isinstance(layer, Linear)
    x, samples = QParams(0.05, 0), feeds(exact, 3)
    looking = Looking(FeedList(samples), Sampling(), 1)
    given = targets(exact, {"y": layer}, looking)
    found = paired(rough, {"y": Reader(layer, x)}, given, looking)["y"]
    images: Array = np.concatenate([feed["x"] for feed in samples])
    patches = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))
    rows: Array = np.moveaxis(patches, 1, 3).reshape(-1, groups, 36 // groups)
    seen: Array = x.fake(np.abs(rows))
    y: Array = np.einsum("god,ngd->ngo", layer.matrix(), np.maximum(rows, 0))
    a: Array = seen - seen.mean(axis=0)
    b: Array = y - y.mean(axis=0)
    assert np.allclose(found.mean, seen.mean(axis=0), atol=1e-5)
    assert np.allclose(found.target, y.mean(axis=0), atol=1e-4)
    assert np.allclose(found.covariance, np.einsum("ngd,nge->gde", a, a) / len(a), atol=1e-4)
    assert np.allclose(found.cross, np.einsum("ngo,ngd->god", b, a) / len(a), atol=1e-4)
    assert len(found.halves) == 2


NET = (
    "net (float[N,8,12,12] x) => (float[N,16,12,12] y)"
    " { a = Conv <pads = [1, 1, 1, 1]> (x, w, c) r = Relu(a)"
    " b = Conv <pads = [1, 1, 1, 1]> (r, v, d) s = Relu(b)"
    " e = Conv <pads = [1, 1, 1, 1]> (s, u, f) t = Relu(e)"
    " y = Conv <pads = [1, 1, 1, 1]> (t, z, g) }"
)


def _net() -> Model:
    weights = {"w": (16, 8, 3, 3), "v": (16, 16, 3, 3), "u": (16, 16, 3, 3), "z": (16, 16, 3, 3)}
    return build(NET, {**weights, **dict.fromkeys("cdfg", (16,))})


def test_sequential_rounding_keeps_the_outputs_better_also_on_other_samples() -> None:
    before, alone, after = _net(), _net(), _net()
    every = feeds(before, 48)
    options: dict[str, Any] = {"scheme": "int8", "weight_bits": 4, "goal": 0.0, "wide_share": 0.0}
    quantize(alone, every[:32], rounding="second_order", **options)
    quantize(after, every[:32], rounding="sequential", **options)
    assert sqnr_db(before, after, every[32:]) > sqnr_db(before, alone, every[32:]) + 0.5


@pytest.mark.parametrize(("enough", "same"), [(8, "sequential"), (9, "second_order")])
def test_few_bits_are_rounded_in_sequence_with_enough_samples(
    enough: int, same: Literal["sequential", "second_order"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "ENOUGH", enough)
    default, given, samples = _net(), _net(), feeds(_net(), 8)
    quantize(default, samples, scheme="int8", weight_bits=4)
    quantize(given, samples, scheme="int8", weight_bits=4, rounding=same)
    assert ir.checksum(default) == ir.checksum(given)


def test_a_spread_of_many_samples_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after, samples = _net(), _net(), feeds(_net(), 24)
    monkeypatch.setattr(sequential, "SAMPLES", 6)
    quantize(after, samples, scheme="int8", weight_bits=4, rounding="sequential", goal=0.0)
    assert sqnr_db(before, after, samples) > 20


def test_layers_without_a_bias_keep_their_outputs() -> None:
    nodes = "{ a = MatMul(x, w) r = Relu(a) y = MatMul(r, w) }"
    before = build(f"net (float[N,32] x) => (float[N,32] y) {nodes}", {"w": (32, 32)})
    after, samples = ir.snapshot(before), feeds(before, 32)
    quantize(after, samples, scheme="int8", weight_bits=4, rounding="sequential", goal=0.0)
    ir.verify(after)
    assert sqnr_db(before, after, samples) > 12
