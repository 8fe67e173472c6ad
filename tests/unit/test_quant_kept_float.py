"""What stays in float between integers is float in ONNX Runtime's own graph as well."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from onnxslim import ir
from onnxslim.ir import Editor
from onnxslim.passes.quant.remove import to_float
from onnxslim.targets import get_target
from tests.quantizing import (
    any_size,
    build,
    feeds,
    kernels,
    operators,
    outputs,
    quantize,
    sqnr_db,
)

CONVS = (
    "net (float[1,8,8,8] x) => (float[1,8,8,8] y) {"
    " a = Conv <pads = [1,1,1,1]> (x, w) ra = Relu(a)"
    " [middle] b = %s rb = Relu(b)"
    " c = Conv <pads = [1,1,1,1]> (rb, v) rc = Relu(c) [last] d = Conv(rc, u) y = Relu(d) }"
)
WEIGHTS = {
    "w": (16, 8, 3, 3), "m": (16, 16, 3, 3), "bias": (16,), "v": (8, 16, 3, 3), "u": (8, 8, 1, 1),
}  # fmt: skip
GEMMS = (
    "net (float[1,8,4,4] x) => (float[1,8] y) {"
    " a = Conv <pads = [1,1,1,1]> (x, w) ra = Relu(a) f = Flatten(ra)"
    " [middle] b = Gemm(f, m%s) rb = Relu(b) c = Gemm(rb, v) rc = Relu(c) y = Gemm(rc, u) }"
)
GEMM_WEIGHTS = {"w": (8, 8, 3, 3), "m": (128, 40), "bias": (40,), "v": (40, 32), "u": (32, 8)}
CASES = {
    "conv": (CONVS % "Conv <pads = [1,1,1,1]> (ra, m, bias)", WEIGHTS, "Conv"),
    "conv without a bias": (CONVS % "Conv <pads = [1,1,1,1]> (ra, m)", WEIGHTS, "Conv"),
    "conv transposed": (
        CONVS % "ConvTranspose <pads = [1,1,1,1]> (ra, m, bias)", WEIGHTS, "ConvTranspose"
    ),
    "gemm": (GEMMS % ", bias", GEMM_WEIGHTS, "Gemm"),
    "gemm without a bias": (GEMMS % "", GEMM_WEIGHTS, "Gemm"),
}  # fmt: skip


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_runtime_leaves_it_in_float(name: str, portable: bool) -> None:
    body, weights, op = CASES[name]
    model = build(body, weights)
    samples = feeds(model)
    quantize(model, samples, scheme="int8", skip=("middle",), portable=portable, goal=0.0)
    made, found = operators(model), kernels(model)
    assert made["com.microsoft::FusedConv"] == (op == "Conv" and not portable)
    assert found[op] + found[f"Fused{op}"] == 1
    # the same numbers without the runtime's rewrites, up to steps of the integers behind it
    assert sqnr_db(model, model, samples, optimize="none") > 30


def test_it_would_be_quantized_otherwise() -> None:
    body, weights, _ = CASES["conv"]
    model = build(body, weights)
    target = replace(any_size(get_target("ort-cpu")), rounds=frozenset())
    quantize(model, feeds(model), target, scheme="int8", skip=("middle",), goal=0.0)
    assert operators(model)["Conv"] == 4
    assert kernels(model)["Conv"] == 0


def test_a_layer_that_makes_an_output_of_the_model_stays_as_it_is() -> None:
    body, weights, _ = CASES["conv"]
    model = build(body, weights)
    quantize(model, feeds(model), scheme="int8", skip=("last",), goal=0.0)
    assert "com.microsoft::FusedConv" not in operators(model)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_layer_comes_back(name: str, portable: bool) -> None:
    body, weights, op = CASES[name]
    model = build(body, weights)
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, samples, scheme="int8", skip=("middle",), portable=portable, goal=0.0)
    to_float(model, Editor(model))
    ir.verify(model)
    made = operators(model) - Counter({"Identity": 1})  # at an output of the graph
    assert made == operators(before)
    assert next(ir.op(node) for node in model.graph if node.name == "middle") == op
    assert outputs(model, samples[0])[0] == pytest.approx(
        outputs(before, samples[0])[0], rel=1e-5, abs=1e-6
    )


def test_the_reason_why_it_stays_in_float_is_told() -> None:
    body, weights, _ = CASES["conv"]
    model = build(body, weights)
    result = quantize(model, feeds(model), scheme="int8", skip=("middle",), goal=0.0)
    assert [d.reason for d in result.declined if d.node == "middle"] == [
        "kept in float by the options ops and skip"
    ]
