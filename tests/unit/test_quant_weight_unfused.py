"""Weights in codes that ONNX Runtime does not fuse in the standard form."""

from __future__ import annotations

import pytest

from onnxslim import ir
from onnxslim.ir import Editor
from onnxslim.passes.quant.remove import to_float
from tests.quantizing import build, feeds, kernels, operators, outputs, quantize, sqnr_db

NET = (
    "net (float[N,64] x) => (float[N,96] y)"
    " { [up] h = MatMul(x, wa) r = Relu(h) [down] y = MatMul(r, wb) }"
)
WEIGHTS = {"wa": (64, 128), "wb": (128, 96)}


@pytest.mark.parametrize(("bits", "least_db"), [(8, 35), (4, 15)])
def test_what_a_relu_keeps_from_being_fused_is_written_as_the_kernel(
    bits: int, least_db: float
) -> None:
    before, model = build(NET, WEIGHTS), build(NET, WEIGHTS)
    result = quantize(model, scheme="weight", weight_bits=bits)
    assert kernels(model)["MatMulNBits"] == 2
    assert operators(model)["com.microsoft::MatMulNBits"] == 1  # the other is fused as it is
    assert sqnr_db(before, model, feeds(before)) > least_db
    assert any("com.microsoft::MatMulNBits" in note for note in result.notes)


def test_it_can_be_taken_out_again() -> None:
    before, model = build(NET, WEIGHTS), build(NET, WEIGHTS)
    quantize(model, scheme="weight")
    assert to_float(model, Editor(model)) == 2
    ir.verify(model)
    feed = feeds(before)[0]
    assert (abs(outputs(model, feed)[0] - outputs(before, feed)[0]) < 1e-5).all()


def test_portable_keeps_to_standard_operators() -> None:
    model = build(NET, WEIGHTS)
    quantize(model, scheme="weight", portable=True)
    assert operators(model)["com.microsoft::MatMulNBits"] == 0


def test_what_is_fused_stays_in_the_standard_form() -> None:
    model = build(NET.replace("Relu", "Sigmoid"), WEIGHTS)
    result = quantize(model, scheme="weight")
    assert operators(model)["com.microsoft::MatMulNBits"] == 0
    assert kernels(model)["MatMulNBits"] == 2
    assert not any("com.microsoft" in note for note in result.notes)
