"""Schemes fp16 and bf16: weights stored in 16 bits, computing in float16 with safe islands."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, DataType, Model
from onnxslim.ir.types import TensorProtocol
from onnxslim.passes.quant.quant import Quant
from onnxslim.pipeline.analysis import AnalysisManager, Aspect
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.runtime.samples import Feed, FeedList
from onnxslim.targets import get_target
from tests.quantizing import build, feeds, kernels, operators, quantize, sqnr_db

MLP = (
    "net (float[N,64] x) => (float[N,64] y) { [up] a = MatMul(x, wa) b = Add(a, ba) r = Relu(b)"
    " [down] y = MatMul(r, wb) }"
)
MLP_WEIGHTS = {"wa": (64, 128), "ba": (128,), "wb": (128, 64)}
HALVES = {"fp16": DataType.FLOAT16, "bf16": DataType.BFLOAT16}


def held(model: Model) -> dict[str, TensorProtocol]:
    """The tensors of the main graph's initializers."""
    values = model.graph.initializers.items()
    return {name: v.const_value for name, v in values if v.const_value is not None}


def compute(model: Model, calib: list[Feed] | None, **options: object) -> PassResult:
    """One run for a target that gains by float16."""
    target = replace(get_target("ort-cpu"), half=frozenset({"fp16"}))
    with ThreadPoolExecutor(1) as executor:
        samples = None if calib is None else FeedList(calib)
        env = Environment(target=target, executor=executor, calib=samples)
        context = Context(env, AnalysisManager(model, env), ir.snapshot(model))
        result = Quant(scheme="fp16", **options).run(model, context)  # type: ignore[arg-type]
    ir.verify(model)
    return result


# Stored


@pytest.mark.parametrize(("scheme", "least_db"), [("fp16", 68), ("bf16", 50)])
def test_weights_are_stored_in_half_the_bytes_and_computed_in_float32(
    scheme: str, least_db: float
) -> None:
    model = build(MLP, MLP_WEIGHTS)
    before, samples = ir.snapshot(model), feeds(model)
    result = quantize(model, samples, scheme=scheme)
    assert {t.dtype for t in held(model).values()} == {HALVES[scheme]}
    assert ir.weight_bytes(model) * 2 == ir.weight_bytes(before)
    assert sqnr_db(before, model, samples) > least_db  # 11 and 8 bits: 73 and 55 dB per rounding
    assert kernels(model) == kernels(before)  # the Casts are folded: the same kernels
    assert sorted(row.op for row in result.layers) == ["Gemm", "Gemm", "MatMul"]
    assert result.stats["int8_layers"] == 0
    assert "the speed as before" in result.notes[0]


def test_a_weight_outside_of_the_range_of_float16_stays_and_is_named() -> None:
    wide = np.ones((64, 64), np.float32)
    wide[3, 3] = 7e4
    body = "net (float[N,64] x) => (float[N,64] y) { a = MatMul(x, w) y = MatMul(a, v) }"
    model = build(body, {"w": wide, "v": (64, 64)})
    result = quantize(model, scheme="fp16")
    assert [(d.node, d.reason) for d in result.declined] == [
        ("w", "its largest number, 7e+04, is out of the range of float16")
    ]
    assert sum(t.dtype == DataType.FLOAT for t in held(model).values()) == 1
    model = build(body, {"w": wide, "v": (64, 64)})
    assert quantize(model, scheme="bf16").declined == ()


def test_weights_too_small_for_float16_stay() -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32) * 1e-8
    model = build("net (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", {"w": weight})
    result = quantize(model, scheme="fp16")
    assert result.changed == Aspect.NONE
    assert result.declined[0].reason == "most of its numbers are too small for float16"


def test_infinite_entries_of_a_mask_survive() -> None:
    mask = np.triu(np.full((16, 16), -np.inf, np.float32), 1)
    model = build(
        "net (float[16,16] x) => (float[16,16] y) { a = Add(x, m) y = Softmax(a) }", {"m": mask}
    )
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, samples, scheme="fp16")
    assert ir.weight_bytes(model) * 2 == ir.weight_bytes(before)
    assert sqnr_db(before, model, samples) > 120  # -inf and 0 are exact in float16


def test_a_weight_of_several_layers_is_stored_once() -> None:
    model = build(
        "net (float[N,64] x) => (float[N,64] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, w) }",
        {"w": (64, 64)},
    )
    quantize(model, scheme="fp16")
    assert operators(model)["Cast"] == 1
    assert len(held(model)) == 1


def test_weights_of_subgraphs_and_functions_are_stored_too() -> None:
    model = build(
        "net (float[N,64] x, float[1] s) => (float[N,64] y) {"
        " t = ReduceSum <keepdims = 0> (s) c = Greater(t, zero) y = If (c) <"
        " then_branch = t () => (float[N,64] p) { p = MatMul(x, w) }"
        ", else_branch = e () => (float[N,64] q) { q = MatMul(x, v) } > }",
        {"w": (64, 64), "v": (64, 64)},
    )
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, samples, scheme="fp16")
    assert ir.weight_bytes(model) < 0.51 * ir.weight_bytes(before)
    assert sqnr_db(before, model, samples) > 68


def test_scales_of_quantized_parts_keep_their_bits() -> None:
    model = build(MLP, MLP_WEIGHTS)
    quantize(model, feeds(model), scheme="int8")
    before = ir.checksum(model)
    assert quantize(model, scheme="fp16").changed == Aspect.NONE
    assert ir.checksum(model) == before


def test_skipped_nodes_keep_their_weights() -> None:
    model = build(MLP, MLP_WEIGHTS)
    quantize(model, scheme="fp16", skip=("up",))
    kept = [name for name, tensor in held(model).items() if tensor.dtype == DataType.FLOAT]
    assert kept == ["wa", "ba"]
    assert len(held(model)) == 3


# Computed


def test_a_target_that_gains_computes_in_float16() -> None:
    model = build(MLP, MLP_WEIGHTS)
    before, samples = ir.snapshot(model), feeds(model)
    result = compute(model, samples)
    assert all(t.dtype == DataType.FLOAT16 for t in held(model).values())
    assert operators(model)["Cast"] == 2  # the ends alone
    assert sqnr_db(before, model, samples) > 55
    assert result.notes == ()


OVERFLOW = (
    "net (float[N,64] x) => (float[N,64] y) { [up] a = MatMul(x, big) [square] b = Mul(a, a)"
    " [root] c = Sqrt(b) d = Mul(c, small) [down] y = MatMul(d, wb) }"
)
OVERFLOW_WEIGHTS: dict[str, tuple[int, ...] | Array] = {
    "big": np.full((64, 64), 50, np.float32),
    "small": np.full(64, 1e-3, np.float32),
    "wb": (64, 64),
}


def test_nodes_whose_numbers_leave_the_range_are_islands() -> None:
    model = build(OVERFLOW, OVERFLOW_WEIGHTS)
    before, samples = ir.snapshot(model), feeds(model)
    result = compute(model, samples)
    islands = {d.node: d.reason for d in result.declined}
    assert set(islands) == {"square", "root"}
    assert "float16 ends at 65504" in islands["square"]
    assert sqnr_db(before, model, samples) > 50
    assert {row.node for row in result.layers} >= {"up", "down"}


def test_what_is_squared_inside_of_an_operator_counts() -> None:
    body = "net (float[N,64] x) => (float[N,64] y) { a = MatMul(x, w) [n] y = {OP} }"
    body = body.replace("{OP}", "LayerNormalization(a, g)")
    spread = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    weights: dict[str, Array] = {
        "w": spread * 10,
        "g": np.ones(64, np.float32),
    }  # a reaches about 250
    model = build(body, weights)
    assert [d.node for d in compute(model, feeds(model)).declined] == ["n"]
    weights["w"] = spread
    model = build(body, weights)
    assert compute(model, feeds(model)).declined == ()


def test_without_samples_operators_that_may_overflow_are_islands() -> None:
    model = build(
        "net (float[N,64] x) => (float[N,64] y) { a = MatMul(x, w) [e] y = Exp(a) }",
        {"w": (64, 64)},
    )
    result = compute(model, None)
    assert [(d.node, d.reason) for d in result.declined] == [
        ("e", "kept in float32: Exp of unknown numbers may overflow")
    ]


def test_a_model_that_loses_too_much_stays_as_it_was() -> None:
    model = build(MLP, MLP_WEIGHTS)
    before = ir.checksum(model)
    body = ir.snapshot(model)
    result = compute(model, feeds(model), goal=60.0)
    if result.changed:  # 11 bits per rounding end near 60 dB: then the other side is shown
        assert sqnr_db(body, model, feeds(body)) >= 60
    else:
        assert "less than goal=60" in result.declined[0].reason
        assert ir.checksum(model) == before
