"""Channel shift: what channels have in common goes behind what reads them, and the same outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.held_out import split
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.place.shifted import MOST, MOST_OUT, fit_shifts, tensor_error
from onnxslim.passes.quant.prepare.shift import Shift, shift_channels, shifts
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Feed, FeedList
from onnxslim.targets import get_target
from onnxslim.targets.forms import INT8, UINT8
from tests.quantizing import build, feeds, operators, outputs, quantize, sqnr_db

FAR = np.array([9, -7, 0, 5, 0, -9, 3, 0], np.float32)
WEIGHTS: Mapping[str, Sequence[int] | Array] = {
    "g": np.ones(8, np.float32),
    "b": FAR,
    "row": FAR.reshape(1, 1, 8),
    "u": (8, 8),
    "w": (8, 12),
    "v": (8, 6),
    "qkv": (8, 24),
    "far24": np.concatenate([np.zeros(16, np.float32), FAR]),
    "sizes": np.array([8, 8, 8]),
    "d": np.arange(12, dtype=np.float32),
    "e": np.arange(6, dtype=np.float32).reshape(1, 6),
    "c": np.arange(8, dtype=np.float32),
}
NORM = "n = LayerNormalization <axis = -1> (x, g, b)"
TAIL = "p = MatMul(n, w) y = Add(p, d)"
HEAD = "net (float[N,5,8] x) =>"
ONE = f"{HEAD} (float[N,5,12] y)"


def shifted(model: Model, z: Array) -> list[Shift]:
    """All that can be shifted by some constants, in place."""
    found = shifts(model, lambda layer: True)
    shift_channels(Editor(model), [(shift, z[: shift.channels]) for shift in found])
    return found


def the_same(before: Model, after: Model, samples: Sequence[Feed]) -> None:
    ir.verify(after)
    for feed in samples:
        for one, two in zip(outputs(before, feed), outputs(after, feed), strict=True):
            assert np.abs(one - two).max() <= 1e-5 * np.abs(one).max()


def test_the_constants_move() -> None:
    model = build(f"{ONE} {{ {NORM} {TAIL} }}", WEIGHTS)
    before = ir.snapshot(model)
    (shift,) = shifted(model, FAR)
    assert (str(shift.value.name), shift.channels, len(shift.layers)) == ("n", 8, 1)
    norm, product, add = model.graph
    weight = ir.array(product.inputs[1])
    assert weight is not None
    assert operators(model) == operators(before)
    assert np.array_equal(np.asarray(ir.array(norm.inputs[2])), np.zeros(8))
    moved: Array = np.arange(12) + np.matmul(FAR, weight, dtype=np.float64)
    assert np.allclose(np.asarray(ir.array(add.inputs[1])), moved, rtol=1e-6, atol=0)
    the_same(before, model, feeds(model, 3))


MADE = {
    "a normalization": (NORM, ["n"]),
    "without a bias": ("n = LayerNormalization <axis = -1> (x, g)", ["n"]),
    "written out": (
        "m = ReduceMean <axes = [-1], keepdims = 1> (x) a = Sub(x, m) s = Mul(a, a)"
        " t = ReduceMean <axes = [-1], keepdims = 1> (s) r = Sqrt(t) q = Div(a, r)"
        " h = Mul(q, g) n = Add(h, row)",
        ["n"],
    ),
    "a constant on the left": ("n = Add(b, x)", ["n"]),
    "a sum": ("h = MatMul(x, u) i = Add(h, b) n = Add(i, x)", ["n"]),
    "a layer": ("h = MatMul(x, u) n = Add(h, b)", ["n"]),
    "attention": (
        "h = MatMul(x, qkv) i = Add(h, far24) q, k, o = Split <axis = -1> (i, sizes)"
        " n = com.microsoft.MultiHeadAttention <num_heads = 2> (q, k, o)",
        ["n"],
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_whatever_makes_the_tensor(name: str) -> None:
    nodes, expected = MADE[name]
    model = build(f"{ONE} {{ {nodes} {TAIL} }}", WEIGHTS)
    before = ir.snapshot(model)
    assert [str(shift.value.name) for shift in shifted(model, FAR)] == expected
    the_same(before, model, feeds(model, 3))


READ = {
    "two layers": "p = MatMul(n, w) y = Add(p, d) q = MatMul(n, v) z = Add(e, q)",
    "what is added to a layer": "p = MatMul(n, u) q = Add(p, c) z = Add(q, n) y = MatMul(z, w)",
    "what a layer is added to": "p = MatMul(n, u) q = Add(p, c) z = Add(n, q) y = MatMul(z, w)",
}


@pytest.mark.parametrize("name", READ)
def test_whatever_reads_it(name: str) -> None:
    width = 6 if name == "two layers" else 8
    body = f"{HEAD} (float[N,5,12] y, float[N,5,{width}] z) {{ {NORM} {READ[name]} }}"
    model = build(body, WEIGHTS)
    before = ir.snapshot(model)
    assert [str(shift.value.name) for shift in shifted(model, FAR)] == ["n"]
    the_same(before, model, feeds(model, 3))


@pytest.mark.parametrize(("tail", "count"), [("Gemm (n, w, d)", 1), ("MatMul(n, w)", 0)])
def test_a_batch_normalization_of_matrices(tail: str, count: int) -> None:
    body = (
        "net (float[N,8] x) => (float[N,12] y)"
        f" {{ n = BatchNormalization (x, g, b, c, var) {'p' if not count else 'y'} = {tail}"
        f" {'' if count else 'y = Add(p, d)'} }}"
    )
    model = build(body, {**WEIGHTS, "var": (8,)})
    before = ir.snapshot(model)
    assert len(shifted(model, FAR)) == count
    the_same(before, model, feeds(model, 3))


def test_gemms_with_factors_and_one_without_a_bias() -> None:
    body = (
        "net (float[N,8] x) => (float[N,12] y, float[N,6] z) { n = Gemm <beta = 2.0> (x, u, b)"
        " y = Gemm <alpha = 0.5, beta = 4.0> (n, w, d) z = Gemm (n, v) }"
    )
    model = build(body, WEIGHTS)
    before = ir.snapshot(model)
    assert len(shifted(model, FAR)) == 1
    the_same(before, model, feeds(model, 3))


def test_a_bias_that_another_normalization_has_stays_as_it_is_there() -> None:
    body = (
        f"{HEAD} (float[N,5,12] y, float[N,5,8] z) {{ {NORM} {TAIL}"
        " z = LayerNormalization <axis = -1> (x, g, b) }"
    )
    model = build(body, WEIGHTS)
    before = ir.snapshot(model)
    assert len(shifted(model, FAR)) == 1
    the_same(before, model, feeds(model, 3))


REFUSED = {
    "another reader": f"{HEAD} (float[N,5,12] y, float[N,5,8] z) {{ {NORM} {TAIL} z = Relu(n) }}",
    "an output": f"{HEAD} (float[N,5,12] y, float[N,5,8] n) {{ {NORM} {TAIL} }}",
    "a computed bias": (
        "net (float[N,5,8] x, float[8] o) => (float[N,5,12] y)"
        f" {{ n = LayerNormalization <axis = -1> (x, g, o) {TAIL} }}"
    ),
    "a product without a bias": f"{ONE} {{ {NORM} y = MatMul(n, w) }}",
    "the product itself an output": f"{HEAD} (float[N,5,12] y, float[N,5,12] p)"
    f" {{ {NORM} {TAIL} }}",
    "a gelu": f"{ONE} {{ h = MatMul(x, u) i = Add(h, b) n = Erf(i) {TAIL} }}",
    "what is added to the input": (
        f"{HEAD} (float[N,5,12] y, float[N,5,8] z) {{ {NORM} {TAIL} z = Add(n, x) }}"
    ),
    "the keys too": (
        f"{ONE} {{ h = MatMul(x, u) i = Add(h, b)"
        f" n = com.microsoft.MultiHeadAttention <num_heads = 2> (x, i, i) {TAIL} }}"
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_stays_where_a_constant_has_no_place(name: str) -> None:
    model = build(REFUSED[name], WEIGHTS)
    before = ir.to_text(model)
    assert shifted(model, FAR) == []
    assert ir.to_text(model) == before


# By samples


def by_samples(model: Model, samples: Sequence[Feed]) -> int:
    """Shift what gains by it, in place."""
    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor, calib=FeedList(samples))
        return fit_shifts(model, env, shifts(model, lambda layer: True), (False, True))


LAYER = build(f"{ONE} {{ {NORM} {TAIL} }}", WEIGHTS)


def test_integers_are_finer_where_channels_lie_off_zero() -> None:
    model, samples = LAYER, feeds(LAYER, 40)
    options: dict[str, Any] = {"scheme": "int8", "smooth": "off"}
    plain, moved = ir.snapshot(model), ir.snapshot(model)
    quantize(plain, samples[:24], equalize="off", **options)
    result = quantize(moved, samples[:24], **options)
    assert result.stats["shifted"] == 1
    assert operators(moved) == operators(plain)
    # 18 + 2 * 2.4 numbers wide before, 2 * 2.4 behind: 13 dB of the activation's noise
    assert sqnr_db(model, moved, samples[24:]) > sqnr_db(model, plain, samples[24:]) + 3


def test_channels_in_the_middle_stay() -> None:
    model = build(f"{ONE} {{ {NORM} {TAIL} }}", {**WEIGHTS, "b": np.zeros(8, np.float32)})
    before = ir.to_text(model)
    assert by_samples(model, feeds(model, 24)) == 0
    assert ir.to_text(model) == before


def test_too_few_samples_to_hold_some_out_shift_nothing() -> None:
    model = ir.snapshot(LAYER)
    assert by_samples(model, feeds(model, 7)) == 0
    assert by_samples(model, feeds(model, 8)) == 1


def test_it_is_not_where_channels_lie_elsewhere_on_samples_held_out() -> None:
    model = build(f"{ONE} {{ n = Add(x, c) {TAIL} }}", {**WEIGHTS, "c": np.zeros(8, np.float32)})
    alike = [{"x": feed["x"] + FAR} for feed in feeds(model, 12)]
    assert by_samples(ir.snapshot(model), alike) == 1
    _, out = split(12, MOST, MOST_OUT)
    other = [{"x": feed["x"] - 2 * FAR * (i in out)} for i, feed in enumerate(alike)]
    assert by_samples(model, other) == 0


def test_the_option_turns_it_off() -> None:
    model, samples = ir.snapshot(LAYER), feeds(LAYER, 24)
    assert "shifted" not in quantize(model, samples, scheme="int8", equalize="off").stats
    model = ir.snapshot(LAYER)
    assert "shifted" not in quantize(model, None, scheme="int8").stats


@pytest.mark.parametrize("numbers", [UINT8, INT8])
def test_the_error_is_that_of_the_outputs(numbers: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (4096, 3))
    weight = np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]])
    error = tensor_error(x, x, [weight], numbers, smooth=False)
    step = 2 / 255
    assert error == pytest.approx(step**2 / 12 * float((weight**2).sum()), rel=0.05)
