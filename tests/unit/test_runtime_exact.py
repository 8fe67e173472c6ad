"""Sums of integers that no processor saturates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, Model
from onnxslim.runtime.exact import exact
from onnxslim.runtime.session import open_session
from onnxslim.targets import get_target
from tests.quantizing import build, quantize, sqnr_db

ROWS, INNER, COLUMNS = 6, 64, 32
HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>\n'
SCALES = (
    "<float s = {1.0}, uint8 z = {3}, float ys = {1.0e5}, uint8 yz = {0}, int8 wz = {0},"
    f" float[{COLUMNS}] ws = {{{','.join(['0.5'] * COLUMNS)}}}>"
)
A, B = f"uint8[{ROWS},{INNER}] a", f"int8[{INNER},{COLUMNS}] b"
PRODUCTS = {
    "MatMulInteger": "int32[M,N] y) {y = MatMulInteger(a, b, z)",
    "MatMulInteger, zero point": "int32[M,N] y) {y = MatMulInteger(a, b, z, wz)",
    "MatMulIntegerToFloat": "float[M,N] y) {y = com.microsoft.MatMulIntegerToFloat(a, b, s, ws, z)",
    "QGemm": "float[M,N] y) {y = com.microsoft.QGemm(a, s, z, b, ws, zeros)",
}


def _saturating() -> tuple[Array, Array]:
    """uint8 [ROWS, INNER] and int8 [INNER, COLUMNS]: sums of two products exceed 16 bits."""
    rng = np.random.default_rng(0)
    rows = rng.integers(200, 256, (ROWS, INNER)).astype(np.uint8)
    return rows, rng.integers(90, 128, (INNER, COLUMNS)).astype(np.int8)


def _model(text: str, weights: dict[str, Array]) -> Model:
    """With these inputs as initializers."""
    model = ir.parse_text(HEAD + text)
    for value in [v for v in model.graph.inputs if v.name in weights]:
        name = str(value.name)
        own = ir.Editor(model).initializer(model.graph, f"{name}_", weights[name])
        ir.Editor(model).rewire([(use.node, use.idx) for use in value.uses()], own)
        model.graph.inputs.remove(value)
    return model


@pytest.mark.parametrize("kind", PRODUCTS)
def test_products_of_integers_are_those_of_their_numbers(kind: str) -> None:
    rows, columns = _saturating()
    zeros = np.zeros(COLUMNS, np.int8)
    text = f"g ({A}, {B}, int8[{COLUMNS}] zeros) => ({PRODUCTS[kind].split(')', 1)[0]}) {SCALES}"
    model = _model(f"{text} {PRODUCTS[kind].split(')', 1)[1]} }}", {"b": columns, "zeros": zeros})
    expected = (rows.astype(np.int64) - 3) @ columns.astype(np.int64)
    found = open_session(model, optimize="exact").run({"a": rows})["y"]
    scale = 0.5 if found.dtype == np.float32 else 1
    assert np.array_equal(found, expected * scale)


def test_the_gates_of_an_lstm_are_those_of_its_numbers() -> None:
    body = "net (float[T,N,48] x) => (float[T,1,N,64] y) { y = LSTM <hidden_size = 64> (x, w, r) }"
    rng = np.random.default_rng(0)
    ones = np.where(rng.random((1, 256, 48)) < 0.5, -1, 1).astype(np.float32)
    model = build(body, {"w": np.abs(ones) / 40, "r": ones[:, :, :1].repeat(64, 2) / 40})
    before = ir.snapshot(model)
    target = replace(get_target("ort-cpu-vnni"), elsewhere=True)
    assert quantize(model, target=target, scheme="dynamic").changed
    samples = [{"x": rng.uniform(0, 1, (5, 3, 48)).astype(np.float32)}]
    assert sqnr_db(before, model, samples, "exact") > 35  # inputs of 8 bits; saturated 5 dB


def test_the_model_stays_and_what_has_no_such_products_is_not_copied() -> None:
    _, columns = _saturating()
    text = f"g ({A}, {B}) => (int32[M,N] y) {{ y = MatMulInteger(a, b) }}"
    model = _model(text, {"b": columns})
    (twin,) = exact(model).graph
    (node,) = model.graph
    codes, zero = (ir.array(twin.inputs[index]) for index in (1, 3))
    assert codes is not None
    assert zero is not None
    assert codes.dtype == zero.dtype == np.uint8
    assert np.array_equal(codes.astype(int) - zero, columns)
    assert ir.array(node.inputs[1]) is not None
    assert node.inputs[1].dtype == ir.DataType.INT8  # type: ignore[union-attr]
    computed = ir.parse_text(HEAD + text)  # both are inputs
    assert not exact(computed).graph.initializers
    plain = build("net (float[N,4] x) => (float[N,4] y) { y = Relu(x) }", {})
    assert exact(plain) is plain
