"""Divisors of smoothed tensors go into the normalization that makes them."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.remove import to_float
from tests.quantizing import build, feeds, operators, outputs, quantize, sqnr_db

NORM = "n = LayerNormalization <axis = -1> (x, g, b)"
HEAD = "net (float[N,S,96] x) =>"
ALONE = (
    f"{HEAD} (float[N,S,96] y)"
    f" {{ {NORM} [q] q = MatMul(n, wq) [k] k = MatMul(n, wk) y = Mul(q, k) }}"
)
READ_TOO = {
    "residual": f"{HEAD} (float[N,S,96] y) {{ {NORM} [q] q = MatMul(n, wq) y = Add(q, n) }}",
    "output": f"{HEAD} (float[N,S,96] y, float[N,S,96] n) {{ {NORM} [q] y = MatMul(n, wq) }}",
}


def _model(body: str) -> Model:
    """Two channels of the normalized tensor are much louder than the others, and read softly."""
    rng = np.random.default_rng(0)
    loud: Array = np.where(np.isin(np.arange(96), (7, 40)), 60.0, 1.0)
    weights: dict[str, Array] = {
        name: (rng.normal(size=(96, 96)) / loud[:, None]).astype(np.float32)
        for name in ("wq", "wk")
    }
    weights["g"] = (loud * rng.uniform(0.5, 2, 96)).astype(np.float32)
    weights["b"] = (loud * rng.normal(size=96)).astype(np.float32)
    return build(body, weights)


@pytest.mark.parametrize("portable", [False, True])
def test_no_product_is_left_in_front_of_the_integers(portable: bool) -> None:
    model = _model(ALONE)
    before, samples = ir.snapshot(model), feeds(model, 6, {"S": 5})
    result = quantize(model, samples, smooth="on", portable=portable, scheme="int8")
    assert result.stats["smoothed"] == 1
    assert operators(model)["Mul"] == operators(before)["Mul"] == 1
    assert sqnr_db(before, model, samples) > 30
    plain = ir.snapshot(before)
    quantize(plain, samples, smooth="off", scheme="int8", goal=0.0)
    assert sqnr_db(before, model, samples) > sqnr_db(before, plain, samples) + 6


@pytest.mark.parametrize("kind", ["residual", "output"])
def test_what_others_read_is_divided_behind_it(kind: str) -> None:
    model = _model(READ_TOO[kind])
    before, samples = ir.snapshot(model), feeds(model, 6, {"S": 5})
    result = quantize(model, samples, smooth="on", scheme="int8")
    assert result.stats["smoothed"] == 1
    assert operators(model)["Mul"] == 1
    assert sqnr_db(before, model, samples) > 30


@pytest.mark.parametrize("portable", [False, True])
def test_the_normalization_comes_back_as_it_was(portable: bool) -> None:
    model = _model(ALONE)
    before, samples = ir.snapshot(model), feeds(model, 6, {"S": 5})
    quantize(model, samples, smooth="on", portable=portable, scheme="int8")
    to_float(model, Editor(model))
    ir.verify(model)
    assert operators(model) == operators(before)
    assert np.array_equal(outputs(before, samples[0])[0], outputs(model, samples[0])[0])
