"""Bias absorption: constants of channels behind the next layer, and the same outputs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.held_out import split
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.place.equal import transformed
from onnxslim.passes.quant.place.known import Known
from onnxslim.passes.quant.prepare.absorb import absorb, constants
from onnxslim.passes.quant.prepare.neighbours import pairs
from onnxslim.passes.quant.quant import Quant
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment
from onnxslim.runtime.samples import Feed, FeedList
from onnxslim.targets import get_target
from tests.quantizing import build, feeds, outputs, quantize, seen_of, sqnr_db

LIFTED = np.array([40.0, 0.0, 60.0, 0.0, 30.0, 0.0], np.float32)
WEIGHTS: dict[str, Sequence[int] | Array] = {
    "w": (6, 4, 1, 1),
    "v": (5, 6, 3, 3),
    "g": (5,),
    "c": LIFTED,
    "k": (6, 1, 2, 2),
}
IMAGE = "net (float[N,4,8,8] x) => (float[N,5,{size}] y) {{ {nodes} }}"


def image(nodes: str, size: str = "6,6", **more: Array) -> Model:
    return build(IMAGE.format(nodes=nodes, size=size), {**WEIGHTS, **more}, 13)


def the_same(before: Model, after: Model, samples: list[Feed]) -> None:
    ir.verify(after)
    for feed in samples:
        one, two = outputs(before, feed)[0], outputs(after, feed)[0]
        assert np.abs(one - two).max() <= 1e-5 * np.abs(one).max()


BETWEEN = {
    "relu": ("a = Conv (x, w, c) r = Relu(a) y = Conv (r, v, g)", "6,6", 3),
    "no bias behind": ("a = Conv (x, w, c) r = Relu(a) y = Conv (r, v)", "6,6", 3),
    "leaky relu": ("a = Conv (x, w, c) r = LeakyRelu(a) y = Conv (r, v, g)", "6,6", 3),
    "a high bound": ("a = Conv (x, w, c) r = Clip(a, zero, high) y = Conv (r, v, g)", "6,6", 3),
    "a low bound": ("a = Conv (x, w, c) r = Clip(a, zero, six) y = Conv (r, v, g)", "6,6", 0),
    "nothing": ("a = Conv (x, w, c) y = Conv (a, v, g)", "6,6", 6),
    "max pool": (
        "a = Conv (x, w, c) m = MaxPool <kernel_shape = [2, 2], pads = [1, 1, 1, 1]> (a)"
        " r = Relu(m) y = Conv (r, v, g)",
        "7,7",
        3,
    ),
    "average pool": (
        "a = Conv (x, w, c) r = Relu(a) m = AveragePool <kernel_shape = [3, 3],"
        " pads = [1, 1, 1, 1]> (r) y = Conv (m, v, g)",
        "6,6",
        3,
    ),
    "depthwise": (
        "a = Conv (x, w, c) r = Relu(a) d = Conv <group = 6> (r, k) s = Relu(d)"
        " y = Conv (s, v, g)",
        "5,5",
        4,  # one behind the depthwise layer
    ),
    "pads": ("a = Conv (x, w, c) r = Relu(a) y = Conv <pads = [1, 1, 1, 1]> (r, v)", "8,8", 0),
    "padded alike": ("a = Conv (x, w, c) r = Relu(a) y = Conv <auto_pad = \"SAME_UPPER\"> (r, v)",
                     "8,8", 0),
    "counted pads": (
        "a = Conv (x, w, c) r = Relu(a) m = AveragePool <kernel_shape = [3, 3],"
        " pads = [1, 1, 1, 1], count_include_pad = 1> (r) y = Conv (m, v, g)",
        "6,6",
        0,
    ),
    "another reader": ("a = Conv (x, w, c) r = Relu(a) b = Conv (r, v, g) e = Conv (r, v)"
                       " y = Add(b, e)", "6,6", 0),
    "a sigmoid": ("a = Conv (x, w, c) r = Sigmoid(a) y = Conv (r, v, g)", "6,6", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", BETWEEN)
def test_channels_that_are_always_above_zero_lose_their_constant(name: str) -> None:
    nodes, size, moved = BETWEEN[name]
    before = image(nodes, size, high=np.asarray(100.0, np.float32))
    after, samples = ir.snapshot(before), feeds(before, 8)
    assert absorb(Editor(after), seen_of(before, samples), 0.5) == moved
    the_same(before, after, samples)


def test_the_tensor_between_spans_less() -> None:
    model = image(BETWEEN["relu"][0])
    samples = feeds(model, 8)
    before = seen_of(model, samples)
    absorb(Editor(model), before, 0.5)
    after = seen_of(model, samples)
    assert after["a"].max.max() < 0.5 * before["a"].max.max()


def test_what_lies_in_the_middle_already_stays() -> None:
    model = image(BETWEEN["nothing"][0], c=np.zeros(6, np.float32))
    samples = feeds(model, 8)
    (pair,) = pairs(model)
    assert constants(pair, seen_of(model, samples), 0.5) is None
    assert constants(pair, {}, 0.5) is None


def test_flattened_images_and_gemms() -> None:
    body = (
        "net (float[N,4,8,8] x) => (float[N,3] y) { a = Conv (x, w, c) r = Relu(a)"
        " f = Flatten(r) h = Gemm <transB = 1> (f, u, b) s = Relu(h)"
        " y = Gemm <alpha = 0.5, beta = 2.0> (s, t, e) }"
    )
    lifted = np.full(7, 50, np.float32)
    shapes: dict[str, Sequence[int] | Array] = {"u": (7, 384), "b": lifted, "t": (7, 3), "e": (3,)}
    before = build(body, {**WEIGHTS, **shapes}, 13)
    after, samples = ir.snapshot(before), feeds(before, 8)
    assert absorb(Editor(after), seen_of(before, samples), 0.5) >= 3
    the_same(before, after, samples)


def test_a_bias_that_another_layer_reads_stays_as_it_is_there() -> None:
    body = (
        "net (float[N,4,8,8] x) => (float[N,6,8,8] y, float[N,6,8,8] z) { a = Conv (x, w, c)"
        " r = Relu(a) y = Conv (r, q, c) z = Conv (x, w, c) }"
    )
    before = build(body, {**WEIGHTS, "q": (6, 6, 1, 1)}, 13)
    after, samples = ir.snapshot(before), feeds(before, 8)
    assert absorb(Editor(after), seen_of(before, samples), 0.5) == 3
    for feed in samples:
        for one, two in zip(outputs(before, feed), outputs(after, feed), strict=True):
            assert np.abs(one - two).max() <= 1e-5 * np.abs(one).max()


# By samples


def lifted() -> tuple[Model, list[Feed]]:
    model = image(BETWEEN["relu"][0])
    return model, feeds(model, 48)


def test_it_is_kept_where_int8_gains_by_it() -> None:
    model, samples = lifted()
    options: dict[str, Any] = {"scheme": "int8", "goal": 0.0, "rounding": "nearest"}
    plain, moved = ir.snapshot(model), ir.snapshot(model)
    quantize(plain, samples[:24], equalize="off", **options)
    result = quantize(moved, samples[:24], equalize="on", **options)
    assert result.stats["absorbed"] == 3
    others = samples[24:]
    assert sqnr_db(model, moved, others) > sqnr_db(model, plain, others) + 1


def test_it_is_not_where_samples_held_out_fall_below() -> None:
    model, samples = lifted()
    _, held = split(24, most_out=16)
    samples = [
        {"x": -20 * feed["x"]} if index in held else feed for index, feed in enumerate(samples[:24])
    ]
    options: dict[str, Any] = {"scheme": "int8", "goal": 0.0, "equalize": "on"}
    assert "absorbed" not in quantize(model, samples, **options).stats


def test_too_few_samples_to_hold_some_out_move_nothing() -> None:
    model, samples = lifted()
    options: dict[str, Any] = {"scheme": "int8", "goal": 0.0, "equalize": "on"}
    assert "absorbed" not in quantize(model, samples[:7], **options).stats


def test_a_second_try_has_what_the_first_found() -> None:
    model, samples = lifted()
    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor, calib=FeedList(samples[:24]))
        known, made = Known(), [ir.snapshot(model) for _ in range(2)]
        found = [
            transformed(
                twin,
                Context(env, AnalysisManager(twin, env), model),
                Quant(scheme="int8", equalize="on"),
                frozenset(),
                known,
            )
            for twin in made
        ]
    assert found[0] == found[1]
    assert found[0].absorbed == 3
    assert len(known.fitted) == 1
    assert ir.to_text(made[0]) == ir.to_text(made[1]) != ir.to_text(model)
