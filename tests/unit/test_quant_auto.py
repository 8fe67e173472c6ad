"""What scheme auto falls back to, and that a result that is slower is undone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim import driver, ir
from onnxslim.config import Request
from onnxslim.ir import Array, Model
from onnxslim.passes.quant import fallback
from onnxslim.passes.quant.quant import Quant
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment
from onnxslim.pipeline.guard import Guard
from onnxslim.pipeline.instruments import Verify
from onnxslim.pipeline.manager import run_passes
from onnxslim.pipeline.stopwatch import Comparison
from onnxslim.runtime.samples import Feed, FeedList
from onnxslim.targets import get_target
from tests.quantizing import build, feeds, kernels, quantize, sqnr_db

UNEVEN = (
    "net (float[N,64] x) => (float[N,64] y) { [first] a = MatMul(x, wa)"
    " n = LayerNormalization(a, g) [second] y = MatMul(n, wb) }"
)
WEIGHTS: dict[str, Sequence[int] | Array] = {
    "wa": (64, 64),
    "g": np.ones(64, np.float32),
    "wb": (64, 64),
}


def uneven() -> tuple[Model, list[Feed]]:
    """Samples of sizes 1 to 10^9 that are all made equal inside: no range suits them all."""
    model = build(UNEVEN, WEIGHTS)
    samples = feeds(model)
    return model, [{"x": feed["x"] * 10.0 ** (3 * i)} for i, feed in enumerate(samples)]


def slower(before: Model, after: Model, env: Environment) -> Comparison:
    return Comparison(1.0, 1.5, 1.5, 0.02, slower=True)


@pytest.fixture
def model() -> Model:
    return build(
        "net (float[N,64] x) => (float[N,32] y) { [up] h = MatMul(x, wa) r = Relu(h)"
        " [down] y = MatMul(r, wb) }",
        {"wa": (64, 128), "wb": (128, 32)},
    )


@pytest.fixture
def ctx(model: Model) -> Iterator[Context]:
    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor, calib=FeedList(feeds(model)))
        yield Context(env, AnalysisManager(model, env), ir.snapshot(model))


# Static that ruins the outputs


def test_auto_is_dynamic_where_no_fixed_range_suits() -> None:
    model, samples = uneven()
    before = ir.snapshot(model)
    result = quantize(model, samples, float_share=0.0)
    assert [(row.node, row.action) for row in result.layers] == [
        ("first", "dynamic int8"),
        ("second", "dynamic int8"),
    ]
    assert kernels(model)["DynamicQuantizeMatMul"] == 2
    assert sqnr_db(before, model, samples) > 20
    assert "MatMul and Gemm quantize their inputs while they run" in result.notes[0]


def test_int8_says_that_no_fixed_range_suits_and_leaves_the_model() -> None:
    model, samples = uneven()
    text = ir.to_text(model)
    result = quantize(model, samples, scheme="int8", float_share=0.0)
    assert not result.changed
    assert ir.to_text(model) == text
    assert {d.node for d in result.declined} == {"first", "second"}
    assert all("keeps the outputs above 6 dB" in d.reason for d in result.declined)


def test_dynamic_that_ruins_the_outputs_too_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "FLOOR_DB", 90.0)
    model, samples = uneven()
    text = ir.to_text(model)
    result = quantize(model, samples, float_share=0.0)
    assert not result.changed
    assert ir.to_text(model) == text
    assert {d.node for d in result.declined} == {"first", "second"}


# Slower than before


def test_int8_that_is_slower_is_undone(model: Model, ctx: Context) -> None:
    text = ir.to_text(model)
    (stage,) = run_passes(model, [Quant()], ctx, [Verify()], Guard(slower))
    assert not stage.kept
    assert not stage.result.changed
    assert ir.to_text(model) == ir.to_text(stage.model) == text
    assert stage.result.declined[0].node == "whole model"
    assert "takes 1.50 times as long as before" in stage.result.declined[0].reason


@pytest.mark.parametrize(("allow_slower", "kernel_count"), [(False, 0), (True, 2)])
def test_allow_slower_keeps_it(
    model: Model, monkeypatch: pytest.MonkeyPatch, *, allow_slower: bool, kernel_count: int
) -> None:
    monkeypatch.setattr(driver, "judge_in_turn", slower)
    request = Request(passes=(Quant(),), calib=feeds(model, 10), allow_slower=allow_slower)
    result, report = driver.compile_model(model, request)
    found = kernels(result)
    assert sum(n for k, n in found.items() if "Integer" in k or "Quantize" in k) >= kernel_count
    assert ("DynamicQuantizeMatMul" in found or "QLinearMatMul" in found) == allow_slower
    assert report.passes[0].kept == allow_slower
