"""Max and Min with a number become Clip, which the QuantizeLinear behind a layer does by itself."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.prepare.bounds import BOUNDS
from onnxslim.rewrite import apply
from onnxslim.runtime.session import optimized_graph
from tests.quantizing import build, feeds, kernels, operators, outputs, quantize, sqnr_db

NUMBERS: dict[str, Array] = {
    "low": np.array([[[[-0.4]]]], np.float32), "high": np.array(0.5, np.float32),
    "many": np.linspace(-1, 1, 4, dtype=np.float32), "deep": np.full((1,) * 5, -0.4, np.float32),
    "nan": np.array(np.nan, np.float32), "whole": np.array(1, np.int64),
}  # fmt: skip


def bounded(text: str) -> tuple[Model, Model, int]:
    """A model before and after, and how many nodes became Clip."""
    before = build(f"n (float[N,2,3,4] x) => (float[N,2,3,4] y) {{ {text} }}", NUMBERS)
    model = ir.snapshot(before)
    count = apply(Editor(model), (BOUNDS,)).applied.get("bounds", 0)
    ir.verify(model)
    return before, model, count


BOUNDED = (
    "y = Max(x, low)", "y = Max(low, x)", "y = Min(x, high)", "m = Max(x, low) y = Min(high, m)",
)  # fmt: skip
OTHERS = (
    "y = Max(x, many)", "y = Max(x, x)", "y = Max(x, nan)", "y = Max(x, low, high)", "y = Max(x)",
)  # fmt: skip


@pytest.mark.parametrize("text", BOUNDED)
def test_a_bound_becomes_clip_with_the_same_numbers(text: str) -> None:
    before, model, count = bounded(text)
    assert operators(model) == {"Clip": count}
    feed = feeds(model, 1)[0]
    np.testing.assert_array_equal(outputs(model, feed)[0], outputs(before, feed)[0])


@pytest.mark.parametrize("text", OTHERS)
def test_others_stay(text: str) -> None:
    before, model, count = bounded(text)
    assert not count
    assert ir.to_text(model) == ir.to_text(before)


def test_a_number_of_more_axes_stays() -> None:
    model = build("n (float[N,2,3,4] x) => (float[1,N,2,3,4] y) { y = Max(x, deep) }", NUMBERS)
    assert not apply(Editor(model), (BOUNDS,)).applied.get("bounds", 0)


CHAIN = (
    "n (float[N,16,9,9] x) => (float[N,16,9,9] y) { a = Conv <pads = [1,1,1,1]> (x, v)"
    " b = LeakyRelu <alpha = 0.2> (a) c = Max(b, low) [last] y = Conv <pads = [1,1,1,1]> (c, w) }"
)


def chain() -> Model:
    return build(CHAIN, {"v": (16, 16, 3, 3), "w": (16, 16, 3, 3), "low": NUMBERS["low"]})


def test_a_bounded_leaky_relu_is_integers_throughout() -> None:
    before, model = chain(), chain()
    quantize(model, feeds(model, 8), scheme="int8")
    found = kernels(model)
    assert (found["QLinearLeakyRelu"], found["QLinearConv"]) == (1, 2)
    assert not found["Max"] + found["Clip"] + found["LeakyRelu"]
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1
    assert sqnr_db(before, model, feeds(model)) > 25


def test_what_the_bound_hides_takes_no_integers() -> None:
    """Below -0.4 / 0.2 the LeakyRelu gives the bound: the integers in front of it end at -2."""
    model = chain()
    samples = [{"x": 4 * feed["x"]} for feed in feeds(model, 8)]
    quantize(model, samples, scheme="int8", ranges="minmax", rounding="nearest", smooth="off")
    (leaky,) = (n for n in optimized_graph(model).graph if ir.op(n).endswith("QLinearLeakyRelu"))
    scale, zero = (ir.array(leaky.inputs[i]) for i in (1, 2))
    assert scale is not None
    assert zero is not None
    assert float(scale) * int(zero) == pytest.approx(2.0, abs=float(scale) / 2)
