"""Scheme weight in both forms: the same numbers, tied tables once, files that load."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.remove import to_float
from onnxslim.passes.quant.weight_only.nbits import packed
from onnxslim.runtime.session import open_session
from tests.quantizing import build, feeds, kernels, operators, outputs, quantize, sqnr_db

FORMS = ("standard", "nbits")
TIED = (
    "net (int64[N,S] ids) => (float[N,S,99] y) { [embed] e = Gather(t, ids) n = Mul(e, g)"
    " w = Transpose <perm=[1,0]> (t) [head] y = MatMul(n, w) }"
)
IDS = {"ids": np.array([[0, 5, -1], [98, 7, 5]])}


def tied() -> Model:
    return build(TIED, {"t": (99, 48), "g": (48,)})


def run(model: Model) -> Array:
    return open_session(model).run(IDS)["y"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("bits", "least_db"), [(8, 36), (4, 13)])
def test_a_tied_table_is_stored_once(form: str, bits: int, least_db: float) -> None:
    """99 outputs and 3 blocks of 16: odd, which 4-bit zero points must be padded for."""
    before, model = tied(), tied()
    result = quantize(model, scheme="weight", weight_bits=bits, table_bits=2, weight_form=form)
    assert [layer.node for layer in result.layers] == ["head", "embed"]
    assert kernels(model)["MatMulNBits"] == 1
    weights = [v.const_value for v in model.graph.initializers.values()]
    large = [t for t in weights if t is not None and t.size * 4 >= 99 * 48]
    assert [t.nbytes for t in large] in ([99 * 48 * bits // 8], [99 * 48 * 4 // 8])
    want, got = run(before), run(model)
    assert 10 * np.log10(np.square(want).sum() / np.square(got - want).sum()) > least_db


@pytest.mark.parametrize("form", FORMS)
def test_a_transposed_copy_of_a_table_is_tied_to_it(form: str) -> None:
    table = np.random.default_rng(0).normal(size=(99, 48)).astype(np.float32)
    text = "net (int64[N,S] ids) => (float[N,S,99] y) { e = Gather(t, ids) y = MatMul(n, c) }"
    text = text.replace("y =", "n = Mul(e, e) y =")
    copies: list[Array] = [
        np.transpose(table).copy(),
        np.add(np.transpose(table), np.float32(1e-3)),
    ]
    for copy, count in zip(copies, (2, 1), strict=True):
        model = build(text, {"t": table, "c": copy})
        assert len(quantize(model, scheme="weight", weight_form=form).layers) == count
        codes = [n for n in model.graph.initializers if str(n).endswith(".codes")]
        assert len(codes) == 1


@pytest.mark.parametrize("bits", [4, 8])
def test_both_forms_hold_the_same_numbers(bits: int) -> None:
    """Integer products in blocks are the same; the order of sums is not."""
    models = [tied(), tied()]
    for model, form in zip(models, FORMS, strict=True):
        quantize(model, scheme="weight", weight_bits=bits, table_bits=2, weight_form=form)
    np.testing.assert_allclose(run(models[0]), run(models[1]), rtol=1e-4, atol=1e-4)


def test_a_tied_table_has_8_bits_by_default() -> None:
    model = tied()
    result = quantize(model, scheme="weight", weight_bits=4)
    assert "8 bits" in result.layers[0].action


def test_indices_of_no_rank_and_of_one_row() -> None:
    text = (
        "net (int64 ids) => (float[96] y) { e = Gather(t, ids) n = Mul(e, e)"
        " w = Transpose <perm=[1,0]> (t) y = MatMul(n, w) }"
    )
    for form in FORMS:
        before, model = build(text, {"t": (96, 64)}), build(text, {"t": (96, 64)})
        assert len(quantize(model, scheme="weight", weight_form=form).layers) == 2
        feed = {"ids": np.array(7)}
        want, got = (open_session(m).run(feed)["y"] for m in (before, model))
        np.testing.assert_allclose(got, want, atol=0.02 * np.abs(want).max())


def test_rows_that_a_product_reads() -> None:
    """ONNX Runtime fuses both DequantizeLinear into a kernel that has no blocks."""
    text = TIED.replace("MatMul(n", "MatMul(e")
    for form, count in (("standard", 1), ("nbits", 2)):
        model = build(text, {"t": (99, 48), "g": (48,)})
        result = quantize(model, scheme="weight", weight_form=form)
        assert len(result.layers) == count
        run(model)
    model = build(text, {"t": (99, 48), "g": (48,)})
    declined = quantize(model, scheme="weight").declined
    assert [d.node for d in declined] == ["embed"]
    assert "weight_form=nbits stores it" in declined[0].reason


def test_other_readers_keep_the_float_table() -> None:
    text = (
        "net (int64[N] ids) => (float[N,96] y, float z) { e = Gather(t, ids) n = Mul(e, e)"
        " w = Transpose <perm=[1,0]> (t) y = MatMul(n, w) z = ReduceSum <keepdims=0> (t) }"
    )
    model = build(text, {"t": (96, 64)})
    assert len(quantize(model, scheme="weight").layers) == 2
    assert operators(model)["ReduceSum"] == 1


def test_nbits_needs_no_new_opset() -> None:
    text = "net (float[N,64] x) => (float[N,65] y) { [a] y = Gemm(x, w, b) }"
    before, model = (build(text, {"w": (64, 65), "b": (65,)}, opset=13) for _ in range(2))
    quantize(model, scheme="weight", weight_bits=4, weight_form="nbits")
    assert ir.opset(model) == 13
    assert operators(model) == {"com.microsoft::MatMulNBits": 1, "Add": 1}
    assert sqnr_db(before, model, feeds(before)) > 17


@pytest.mark.parametrize("form", FORMS)
def test_to_float_restores_tables_and_layers(form: str) -> None:
    before, model = tied(), tied()
    quantize(model, scheme="weight", weight_bits=4, weight_form=form)
    assert to_float(model, Editor(model)) == 2
    ir.verify(model)
    np.testing.assert_allclose(run(model), run(before), atol=1e-5)


def test_the_fused_kernel_has_level_4_by_default() -> None:
    """So both forms run the same kernel without any session option."""
    model = build("n (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", {"w": (64, 64)})
    quantize(model, scheme="weight")
    from onnxslim.runtime.session import optimized_graph

    fused = [n for n in optimized_graph(model).graph if ir.op(n).endswith("MatMulNBits")]
    assert [ir.attribute(n, "accuracy_level", 0) for n in fused] == [4]


def test_packing_pads_each_row_to_bytes() -> None:
    numbers = np.array([[1, 2, 3], [15, 0, 7]])
    np.testing.assert_array_equal(packed(numbers, 4), [[0x21, 0x03], [0x0F, 0x07]])
    np.testing.assert_array_equal(packed(numbers, 8), numbers)


def test_without_optimizations_the_standard_form_gives_the_same() -> None:
    model = build(TIED, {"t": (99, 48), "g": (48,)})
    quantize(model, scheme="weight", weight_bits=4)
    want = outputs(model, IDS)[0]
    np.testing.assert_allclose(run(model), want, atol=0.02 * np.abs(want).max())


def test_a_language_model_is_timed_on_one_token() -> None:
    model = tied()
    result = quantize(model, [IDS], scheme="weight")
    assert result.timed_on is not None
    assert result.timed_on["ids"].shape == (2, 1)
