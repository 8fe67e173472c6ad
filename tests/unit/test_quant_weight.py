"""Scheme weight: codes in blocks that ONNX Runtime multiplies by, activations in float."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import DataType, Editor
from onnxslim.passes.quant.quant import Quant
from onnxslim.passes.quant.remove import to_float
from onnxslim.passes.quant.weight_only.grid import fitted
from onnxslim.passes.quant.weights.rounding import round_by_covariance, round_to_grid
from tests.quantizing import build, feeds, kernels, outputs, quantize, sqnr_db

MLP = (
    "net (float[N,64] x) => (float[N,64] y) { [up] a = MatMul(x, wa)"
    " [down] y = Gemm <transB=1> (a, wb, b) }"
)
WEIGHTS = {"wa": (64, 128), "wb": (64, 128), "b": (64,)}


@pytest.mark.parametrize(("bits", "least_db"), [(8, 38), (4, 17), (3, 10), (2, 3)])
def test_every_layer_becomes_matmulnbits(bits: int, least_db: float) -> None:
    """A uniform step of b bits over about 4 sigma gives 6.02 b - 4 dB less the layers' sum."""
    model, before = build(MLP, WEIGHTS), build(MLP, WEIGHTS)
    result = quantize(model, scheme="weight", weight_bits=bits)
    assert kernels(model)["MatMulNBits"] == 2
    assert [layer.node for layer in result.layers] == ["up", "down"]
    assert sqnr_db(before, model, feeds(before)) > least_db
    codes = [v for v in model.graph.initializers.values() if str(v.name).endswith(".codes")]
    stored = {v.const_value.dtype for v in codes if v.const_value is not None}
    assert stored == {DataType.UINT8 if bits == 8 else DataType.UINT4}


def test_calibration_rounds_by_second_order() -> None:
    rng = np.random.default_rng(3)
    mix = rng.normal(size=(4, 64)).astype(np.float32)
    samples = [
        {"x": (rng.normal(size=(64, 4)) @ mix + 0.1 * rng.normal(size=(64, 64))).astype(np.float32)}
        for _ in range(8)
    ]
    before, plain, better = (build(MLP, WEIGHTS) for _ in range(3))
    quantize(plain, scheme="weight", weight_bits=4)
    result = quantize(better, samples[:6], scheme="weight", weight_bits=4)
    assert "second-order" in result.layers[0].action
    gain = sqnr_db(before, better, samples[6:]) - sqnr_db(before, plain, samples[6:])
    assert gain > 1


def test_a_weight_of_two_layers_is_stored_once() -> None:
    text = "net (float[N,64] x) => (float[N,64] y) { a = MatMul(x, w) y = MatMul(a, w) }"
    model = build(text, {"w": (64, 64)})
    assert len(quantize(model, scheme="weight").layers) == 2
    assert sum(str(name).endswith(".codes") for name in model.graph.initializers) == 1


def test_smaller_blocks_for_odd_sizes_and_reasons() -> None:
    text = "net (float[N,48] x) => (float[N,90] y) { [a] h = MatMul(x, w) [b] y = MatMul(h, v) }"
    model = build(text, {"w": (48, 90), "v": (90, 90)})
    result = quantize(model, scheme="weight")
    assert "blocks of 16" in result.layers[0].action
    assert {d.node: d.reason for d in result.declined} == {
        "b": "its 90 inputs are no multiple of 16, the smallest block"
    }


def test_nan_stays_float() -> None:
    weight = np.full((64, 64), np.nan, np.float32)
    model = build("n (float[N,64] x) => (float[N,64] y) { [a] y = MatMul(x, w) }", {"w": weight})
    result = quantize(model, scheme="weight")
    assert not result.layers
    assert result.declined[0].reason == "the weight holds NaN or infinity"


def test_to_float_restores_the_outputs() -> None:
    model, before = build(MLP, WEIGHTS), build(MLP, WEIGHTS)
    quantize(model, scheme="weight", weight_bits=4)
    assert to_float(model, Editor(model)) == 2
    ir.verify(model)
    feed = feeds(before)[0]
    np.testing.assert_allclose(outputs(model, feed)[0], outputs(before, feed)[0], atol=1e-5)


@pytest.mark.parametrize("share", [0, 0.02])
def test_grid_is_never_worse_than_the_range(share: float) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(16, 64)) * np.where(rng.random((16, 64)) < share, 20, 1)
    grid = fitted(weight, 4, 32)
    blocks = weight.reshape(16, 2, 32)
    low, high = np.minimum(blocks.min(2), 0), np.maximum(blocks.max(2), 0)
    step = ((high - low) / 15)[..., None]
    zero = np.rint(-low[..., None] / step)
    plain = (np.clip(np.rint(blocks / step) + zero, 0, 15) - zero) * step
    error = np.square(grid.values(grid.codes(weight)) - weight).sum()
    assert error < np.square(plain - blocks).sum()


def test_without_data_nothing_is_cut_off() -> None:
    """The largest of each block come back to within half a step, but for the zero's rounding."""
    weight = np.random.default_rng(0).standard_t(3, size=(16, 64))
    grid = fitted(weight, 4, 32)
    off = np.abs(grid.values(grid.codes(weight)) - weight)
    assert (off <= grid.spread(grid.scale) * 1.51).all()
    assert (off <= grid.spread(grid.scale) * 0.51).mean() > 0.97


def test_grids_of_zeros_are_exact() -> None:
    grid = fitted(np.zeros((2, 32)), 4, 16)
    assert not grid.values(grid.codes(np.zeros((2, 32)))).any()


def test_round_to_grid_is_the_same_for_equal_scales() -> None:
    rng = np.random.default_rng(0)
    weight, scale = rng.normal(size=(1, 5, 70)), np.full((1, 5), 0.2)
    x = rng.normal(size=(200, 70))
    covariance = np.asarray(np.einsum("ni,nj->ij", x, x) / 200, np.float64)[None]
    ends = np.full(weight.shape, 7.0)
    many = round_to_grid(weight, np.full(weight.shape, 0.2), covariance, -ends, ends)
    np.testing.assert_array_equal(many, round_by_covariance(weight, scale, covariance, 7))


@pytest.mark.parametrize(
    ("options", "note"),
    [
        (Quant(scheme="weight"), None),
        (Quant(scheme="weight", weight_bits=4), "codes are the nearest ones, not fitted"),
        (Quant(scheme="dynamic"), None),
        (Quant(), "MatMul and Gemm quantize their inputs while they run"),
    ],
)
def test_without_data_the_note_is_that_of_the_scheme(options: Quant, note: str | None) -> None:
    said = [n for n in quantize(build(MLP, WEIGHTS), **vars(options)).notes if "calibration" in n]
    assert len(said) == (note is not None)
    assert note is None or note in said[0]


def test_options_out_of_range() -> None:
    with pytest.raises(ValueError, match="weight_bits=1, expected 2 to 8"):
        Quant(scheme="weight", weight_bits=1)
    with pytest.raises(ValueError, match="block_size=20, expected"):
        Quant(scheme="weight", block_size=20)
    with pytest.raises(ValueError, match="table_bits=1, expected 2 to 8"):
        Quant(scheme="weight", table_bits=1)
    with pytest.raises(ValueError, match="portable=true, expected weight_form=standard"):
        Quant(scheme="weight", weight_form="nbits", portable=True)
