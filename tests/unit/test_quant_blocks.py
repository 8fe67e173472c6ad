"""Blocks of inputs whose scales are whole multiples of their channel's scale."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, DataType, Editor, Model
from onnxslim.passes.quant.rewrite.packed import pack
from onnxslim.passes.quant.weights.blocks import (
    block_of,
    block_scales,
    factored,
    largest_multiple,
)
from onnxslim.passes.quant.weights.fitted import fit, row_errors
from onnxslim.targets.forms import FP8, INT7, INT8
from tests.quantizing import build, feeds, kernels, outputs, quantize, rounding_case, sqnr_db

UNEVEN = np.repeat([1.0, 0.2, 0.05, 0.6], 16)
"""Sizes of 64 inputs' weights, by blocks."""


def uneven_case() -> tuple[Array, Array, Array]:
    weight, _, covariance = rounding_case(1, 12, 64)
    weight = weight * UNEVEN
    return weight, np.abs(weight).max(axis=2) / 7, covariance


def test_blocks_and_multiples_that_the_integers_hold() -> None:
    assert [block_of(n) for n in (144, 40, 9, 25)] == [16, 8, 9, 25]
    assert largest_multiple(INT7, 4) == 8  # 8 * -8 = -64, the lowest of 7 bits
    assert largest_multiple(INT8, 4) == 15  # what 4 bits without a sign store
    assert largest_multiple(INT8, 5) == largest_multiple(FP8, 4) == 1


def test_the_multiples_follow_the_sizes_of_the_blocks() -> None:
    weight, scale, covariance = uneven_case()
    importance = np.diagonal(covariance, axis1=1, axis2=2)
    scales, times = block_scales(weight, scale, importance, 7, 8)
    assert (scales > 0).all()
    assert times.min() >= 1
    assert times.max() <= 8
    by_block = times.reshape(12, 4, 16)
    assert (by_block == by_block[:, :, :1]).all()
    means = by_block[:, :, 0].mean(axis=0)
    assert means[0] > means[3] > means[1] > means[2]


def test_a_fit_in_blocks_is_better_and_made_of_codes() -> None:
    weight, scale, covariance = uneven_case()
    plain, one = fit(weight, scale, covariance, 7)
    integers, many = fit(weight, scale, covariance, 7, most=8)
    error = row_errors(weight, many, covariance, integers).sum()
    assert error < 0.5 * row_errors(weight, one, covariance, plain).sum()
    found = factored(integers[0].astype(np.int64), 16, -8, 7)
    assert found is not None
    assert found[1].max() > 1


def test_rows_of_zeros_and_inputs_never_seen_are_no_trouble() -> None:
    weight, _, covariance = uneven_case()
    weight[:, 1] = 0
    covariance[:, 40:, :] = covariance[:, :, 40:] = 0
    scale = np.where(weight.any(axis=2), np.abs(weight).max(axis=2) / 7, 1.0)
    integers, scales = fit(weight, scale, covariance, 7, most=8)
    assert np.isfinite(scales).all()
    assert not integers[:, 1].any()


def test_one_scale_for_the_whole_weight_has_no_blocks() -> None:
    weight, scale, covariance = uneven_case()
    whole = np.broadcast_to(scale.max(), scale.shape)
    integers, _ = fit(weight, whole, covariance, 7, shared=True, most=8)
    assert integers.min() >= -8
    assert integers.max() <= 7


def test_integers_are_taken_apart_and_others_refused() -> None:
    integers = np.array([[-64, 56, 8, 0], [7, -8, 1, 3], [0, 0, 5, 10], [14, -16, 2, 4]])
    found = factored(integers, 2, -8, 7)
    assert found is not None
    codes, times = found
    assert (codes * times[:, :, None] == integers.reshape(4, 2, 2)).all()
    assert codes.min() >= -8
    assert codes.max() <= 7
    assert factored(np.array([[9, 10]]), 2, -8, 7) is None
    assert factored(np.array([[128, 112]]), 2, -8, 7) is None  # 16 times


NETS = {
    "conv": (
        "net (float[N,16,8,8] x) => (float[N,24,8,8] y)"
        " { a = Conv <pads = [1, 1, 1, 1]> (x, w, c) y = Relu(a) }",
        {"w": (24, 16, 3, 3), "c": (24,)},
        "QLinearConv",
    ),
    "gemm": (
        "net (float[N,64] x) => (float[N,24] y) { y = Gemm(x, w, c) }",
        {"w": (64, 24), "c": (24,)},
        "QGemm",
    ),
    "gemm, transposed": (
        "net (float[N,64] x) => (float[N,24] y) { y = Gemm <transB = 1> (x, w, c) }",
        {"w": (24, 64), "c": (24,)},
        "QGemm",
    ),
    "matmul": (
        "net (float[N,5,64] x) => (float[N,5,24] y)"
        " { a = MatMul(x, w) b = Add(a, c) y = LayerNormalization(b, c) }",
        {"w": (64, 24), "c": (24,)},
        "MatMulIntegerToFloat",
    ),
}


def _stored(model: Model, dtype: DataType) -> int:
    held = (value.const_value for value in model.graph.initializers.values())
    return sum(int(t.size) for t in held if t is not None and t.dtype == dtype)


@pytest.mark.parametrize("name", NETS)
def test_codes_and_multiples_are_stored_in_4_bits_and_run_as_integers(name: str) -> None:
    text, weights, kernel = NETS[name]
    before, model = build(text, weights), build(text, weights)
    size = int(np.prod(weights["w"]))
    quantize(model, feeds(before, 8), scheme="int8", weight_bits=4, goal=0.0, wide_share=0.0)
    ir.verify(model)
    assert _stored(model, DataType.INT4) == size
    assert _stored(model, DataType.UINT4) == size // 16
    assert _stored(model, DataType.INT8) < 64  # zero points
    found = kernels(model)
    assert found[kernel] == 1
    assert found["Mul"] == found["Cast"] == found["Reshape"] == 0
    assert sqnr_db(before, model, feeds(before, 8)) > 20


def test_what_is_packed_gives_what_the_bytes_give() -> None:
    text, weights, _ = NETS["conv"]
    model, sample = build(text, weights), feeds(build(text, weights), 1)[0]
    ir.raise_opset(model, 21)
    quantize(model, feeds(model, 8), scheme="int8", weight_bits=5, goal=0.0, wide_share=0.0)
    (held,) = (v for v in model.graph.initializers.values() if v.name == "w.int8")
    (use,) = held.uses()
    rng = np.random.default_rng(0)
    codes, times = rng.integers(-8, 8, (24, 9, 16)), rng.integers(1, 9, (24, 9, 1))
    editor = Editor(model)
    integers = (codes * times).reshape(24, 16, 3, 3).astype(np.int8)
    editor.rewire([(use.node, 0)], editor.initializer(model.graph, "bytes", integers))
    editor.remove_dead()
    exact = outputs(model, sample)[0]
    assert pack(Editor(model)) == integers.size
    assert (outputs(model, sample)[0] == exact).all()
