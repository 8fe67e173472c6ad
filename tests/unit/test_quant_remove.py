"""Taking quantization out again gives the float model back, and lowrank can work on it."""

from __future__ import annotations

import pytest

from onnxslim import ir
from onnxslim.ir import Editor
from onnxslim.passes.quant.remove import to_float
from tests.quantizing import build, feeds, operators, outputs, quantize
from tests.unit.test_quant_fusion import MORE, PATTERNS, W
from tests.unit.test_quant_pass import MLP, MLP_WEIGHTS, SUBGRAPH


@pytest.mark.parametrize("name", [name for name in PATTERNS if name != "nearest resize"])
def test_the_float_model_comes_back(name: str) -> None:
    model = build(PATTERNS[name][0], {**W, **MORE})
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, samples)
    assert to_float(model, Editor(model)) > 0
    ir.verify(model)
    found = operators(model)
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 0
    for one, two in zip(outputs(before, samples[0]), outputs(model, samples[0]), strict=True):
        # exact weights; what differs is float32 rounding of folded HardSigmoid and scalar maps
        assert two == pytest.approx(one, rel=1e-4, abs=1e-4)


def test_dynamic_layers_come_back_with_their_bias_and_layout() -> None:
    model = build(
        "net (float[N,64] x) => (float[N,96] y)"
        " { h = Gemm <transB = 1> (x, w, b) y = MatMul(h, v) }",
        {"w": (96, 64), "b": (96,), "v": (96, 96)},
    )
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model)
    assert to_float(model, Editor(model)) == 2
    ir.verify(model)
    assert operators(model) == {"Gemm": 1, "MatMul": 1}
    assert (outputs(before, samples[0])[0] == outputs(model, samples[0])[0]).all()


def test_dynamic_layers_come_back_under_their_own_names() -> None:
    model = build(
        "net (float[N,96] x) => (float[N,96] y) { [first] h = MatMul(x, w) y = MatMul(h, v) }",
        {"w": (96, 96), "v": (96, 96)},
    )
    quantize(model)
    to_float(model, Editor(model))
    assert [ir.label(node) for node in model.graph] == ["first", "y"]


def test_layers_of_subgraphs_come_back() -> None:
    model = build(SUBGRAPH, {"w": (64, 96), "v": (64, 96)})
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, samples)
    assert to_float(model, Editor(model)) == 2
    ir.verify(model)
    assert (outputs(before, samples[0])[0] == outputs(model, samples[0])[0]).all()


def test_it_works_after_a_snapshot_was_restored() -> None:
    model = build(MLP, MLP_WEIGHTS)
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, samples)
    state = ir.snapshot(model)
    ir.restore(model, state)
    to_float(model, Editor(model))
    ir.verify(model)
    assert (outputs(before, samples[0])[0] == outputs(model, samples[0])[0]).all()


def test_what_another_tool_quantized_stays() -> None:
    model = build(MLP, MLP_WEIGHTS)
    quantize(model, feeds(model))
    foreign = ir.load(ir.to_bytes(model))
    text = ir.to_text(foreign)
    assert to_float(foreign, Editor(foreign)) == 0
    assert ir.to_text(foreign) == text
