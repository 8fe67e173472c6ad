"""The pass as a whole: options, what it declines and says, what it leaves alone, data-free mode."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import OptionError
from onnxslim.ir import Model
from onnxslim.passes.quant.quant import Quant
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.options import from_spec, to_spec
from onnxslim.pipeline.spec import parse_pipeline
from tests.quantizing import build, feeds, kernels, operators, outputs, quantize, sqnr_db

CONV = "Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
BN = "BatchNormalization"
CNN = (
    "net (float[N,3,12,12] x) => (float[N,10] y) {"
    f" [stem] a = {CONV} (x, w1) n = {BN} (a, g, b, m, var) r = Relu(n)"
    f" [body] c = {CONV} (r, w2) o = {BN} (c, g, b, m, var) s = Relu(o)"
    " p = GlobalAveragePool(s) f = Flatten(p) [head] y = Gemm <transB = 1> (f, wg, bg) }"
)
CNN_WEIGHTS = {
    "w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "g": (16,), "b": (16,), "m": (16,), "var": (16,),
    "wg": (10, 16), "bg": (10,),
}  # fmt: skip
MLP = (
    "net (float[N,6,64] x) => (float[N,6,64] y) { [up] a = MatMul(x, wa) b = Add(a, ba) r = Relu(b)"
    " [down] y = MatMul(r, wb) }"
)
MLP_WEIGHTS = {"wa": (64, 128), "ba": (128,), "wb": (128, 64)}


def cnn(opset: int = 17) -> Model:
    return build(CNN, CNN_WEIGHTS, opset)


# Options


@pytest.mark.parametrize(
    "text",
    [
        "quant",
        "quant{scheme=dynamic per_channel=false}",
        "quant{goal=3.0 ops=Conv,Gemm skip=/head/*}",
    ],
)
def test_options_and_text_are_the_same_thing(text: str) -> None:
    (spec,) = parse_pipeline(text)
    assert str(to_spec(from_spec(Quant, spec))) == text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bits": 4}, "weight_bits=4, expected 7 or 8"),
        ({"percentile": 10.0}, "percentile=10, expected 50 to 100"),
        ({"goal": -1.0}, "goal=-1, expected 0 to 60"),
        ({"float_share": 2.0}, "float_share=2, expected 0 to 1"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Quant(**options)  # type: ignore[arg-type]


def test_names_that_the_model_does_not_have_are_refused() -> None:
    model = cnn()
    with pytest.raises(OptionError, match="no operator 'Covn'; did you mean 'Conv'"):
        quantize(model, feeds(model), ops=("Covn",))
    with pytest.raises(OptionError, match="no node of the model is called 'tail\\*'"):
        quantize(model, feeds(model), skip=("tail*",))


def test_skipped_nodes_and_operators_stay_in_float_and_are_reported() -> None:
    model = cnn()
    result = quantize(model, feeds(model), skip=("ste?",))
    assert [(d.node, d.reason) for d in result.declined] == [
        ("stem", "kept in float by the options ops and skip")
    ]
    assert kernels(model)["QLinearConv"] == 1
    model = cnn()
    quantize(model, feeds(model), ops=("Gemm",))
    assert kernels(model)["QLinearConv"] == 0
    assert kernels(model)["QGemm"] == 1


def test_one_scale_per_tensor_and_seven_bits() -> None:
    model = cnn()
    quantize(model, feeds(model), per_channel=False, weight_bits=7)
    weight = ir.array(model.graph.initializers["w2_1.int8"])
    scale = ir.array(model.graph.initializers["w2_1.scale"])
    assert weight is not None
    assert scale is not None
    assert np.abs(weight.astype(int)).max() == 63
    assert len(np.unique(scale)) == 1


# Results


def test_the_result_says_what_was_done() -> None:
    model = cnn()
    result = quantize(model, feeds(model))
    assert result.changed == Aspect.ALL
    assert result.stats["int8_layers"] == 3
    assert result.stats["folded"] == 2
    assert result.stats["fused_kernels"] == 4  # two Conv, one pool, one Gemm
    assert float(result.stats["output_db"]) > 25
    assert [layer.node for layer in result.layers] == ["stem", "body", "head"]
    assert result.notes == (
        "int8: 2 of 2 Conv, 1 of 1 Gemm",
        "QuantizeLinear and DequantizeLinear that run: 1 at inputs and outputs of the model",
    )


def test_two_runs_give_the_same_bytes() -> None:
    one, two = cnn(), cnn()
    quantize(one, feeds(one))
    quantize(two, feeds(two))
    assert ir.to_bytes(one) == ir.to_bytes(two)


def test_a_second_run_changes_nothing() -> None:
    model = cnn()
    samples = feeds(model)
    quantize(model, samples)
    before = ir.checksum(model)
    result = quantize(model, samples)
    assert result.changed == Aspect.NONE
    assert ir.checksum(model) == before
    assert {d.reason for d in result.declined} == {"the weight is quantized already"}


def test_a_model_without_layers_stays_as_it_is() -> None:
    model = build("net (float[N,4] x) => (float[N,4] y) { a = Relu(x) y = Mul(a, three) }", {}, 11)
    text = ir.to_text(model)
    assert quantize(model, feeds(model)).changed == Aspect.NONE
    assert ir.to_text(model) == text  # the opset too


def test_the_opset_rises_to_what_scales_per_channel_need() -> None:
    model = cnn(opset=11)
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, samples)
    assert ir.opset(model) == 13
    assert kernels(model)["QLinearConv"] == 2
    assert sqnr_db(before, model, samples) > 25


DECLINED = {
    "computed weight": (
        "net (float[N,3,8,8] x, float[16,3,3,3] k) => (float[N,16,8,8] y)"
        f" {{ [a] y = {CONV} (x, k) }}",
        "the weight is computed, not a constant",
    ),
    "constant on the left": (
        "net (float[8,4] x) => (float[16,4] y) { [a] y = MatMul(w, x) }",
        "the constant is on the left, so it mixes rows and not features",
    ),
    "factor of the product": (
        "net (float[N,8] x) => (float[N,16] y) { [a] y = Gemm <alpha = 2.0> (x, v) }",
        "alpha=2.0 has no int8 kernel",
    ),
    "computed bias": (
        "net (float[N,8] x, float[16] k) => (float[N,16] y) { [a] y = Gemm (x, v, k) }",
        "the bias is computed, or differs from row to row",
    ),
}


@pytest.mark.parametrize("case", DECLINED)
def test_what_cannot_be_quantized_is_declined_with_the_reason(case: str) -> None:
    body, reason = DECLINED[case]
    model = build(body, {"w": (16, 8), "v": (8, 16)})
    result = quantize(model, feeds(model), scheme="int8")
    assert result.changed == Aspect.NONE
    assert [(d.node, d.reason) for d in result.declined] == [("a", reason)]


# Weights in all their places


@pytest.mark.parametrize("place", ["Identity (w)", "Constant <value = float[2,2] {1, 2, 3, 4}> ()"])
def test_weights_behind_identity_and_in_constant_nodes_become_int8(place: str) -> None:
    model = build(
        f"net (float[N,2] x) => (float[N,2] y) {{ i = {place} y = MatMul(x, i) }}", {"w": (2, 2)}
    )
    before, samples = ir.snapshot(model), feeds(model, sizes={"N": 64})
    quantize(model, samples, portable=True)
    assert operators(model) == {"QuantizeLinear": 1, "DequantizeLinear": 2, "MatMul": 1}
    assert sqnr_db(before, model, samples) > 30
    assert not [
        v for v in model.graph.initializers.values() if ir.array(v).size == 4  # type: ignore[union-attr]
        and v.dtype == ir.DataType.FLOAT
    ]  # fmt: skip


def test_a_weight_that_float_nodes_read_too_is_kept_for_them() -> None:
    model = build(
        "net (float[N,8] x) => (float[N,16] y, float[8,16] z) { y = MatMul(x, w) z = Relu(w) }",
        {"w": (8, 16)},
    )
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, samples)
    assert kernels(model)["MatMulIntegerToFloat"] == 1
    assert (outputs(model, samples[0])[1] == outputs(before, samples[0])[1]).all()


SUBGRAPH = (
    "net (float[N,64] x, float[1] s) => (float[N,96] y) {"
    " t = ReduceSum <keepdims = 0> (s) c = Greater(t, zero) y = If (c) <"
    " then_branch = t () => (float[N,96] p) { [inner] p = MatMul(x, w) }"
    ", else_branch = e () => (float[N,96] q) { [other] q = MatMul(x, v) } > }"
)


def test_layers_of_subgraphs_are_quantized_dynamically() -> None:
    model = build(SUBGRAPH, {"w": (64, 96), "v": (64, 96)})
    before, samples = ir.snapshot(model), feeds(model)
    result = quantize(model, samples)
    assert [(row.node, row.action) for row in result.layers] == [
        ("inner", "dynamic int8"), ("other", "dynamic int8")
    ]  # fmt: skip
    assert sum(ir.op(node) == "MatMulInteger" for node in ir.nodes(model)) == 2
    assert sqnr_db(before, model, samples) > 30


def test_static_quantization_of_a_subgraph_is_declined() -> None:
    model = build(SUBGRAPH, {"w": (64, 96), "v": (64, 96)})
    result = quantize(model, feeds(model), scheme="int8")
    assert result.changed == Aspect.NONE
    assert [d.node for d in result.declined] == ["inner", "other"]
    assert {d.reason for d in result.declined} == {
        "it lies in a subgraph or function, where calibration sees no tensors"
    }


# Without data


def test_without_data_matmul_is_dynamic_and_fused() -> None:
    model = build(MLP, MLP_WEIGHTS)
    before = ir.snapshot(model)
    result = quantize(model)
    assert kernels(model)["DynamicQuantizeMatMul"] == 2
    assert kernels(model)["MatMul"] == 0
    assert "--calib" in result.notes[0]
    assert sqnr_db(before, model, feeds(before)) > 30


def test_without_data_a_gemm_becomes_dynamic_too() -> None:
    model = build(
        "net (float[N,64] x) => (float[N,96] y) { y = Gemm <transB = 1, alpha = 0.5> (x, w, b) }",
        {"w": (96, 64), "b": (96,)},
    )
    before = ir.snapshot(model)
    quantize(model)
    assert kernels(model)["DynamicQuantizeMatMul"] == 1
    assert sqnr_db(before, model, feeds(before)) > 30


def test_small_and_untypical_layers_are_not_dynamic_and_say_why() -> None:
    model = build(
        "net (float[64,4] x) => (float[4,96] y) { [t] a = Gemm <transA = 1> (x, w)"
        " [s] b = MatMul(a, u) [k] y = Gemm <beta = 2.0> (b, v, c) }",
        {"w": (64, 96), "u": (96, 10), "v": (10, 96), "c": (96,)},
    )
    result = quantize(model, scheme="dynamic")
    assert result.changed == Aspect.NONE
    assert {d.node: d.reason for d in result.declined} == {
        "t": "its input is transposed",
        "s": "its 960 weights are too few to gain anything",
        "k": "its 960 weights are too few to gain anything",
    }


def test_a_dynamic_layer_without_a_name_is_reported_once_by_its_output() -> None:
    model = build("net (float[N,96] x) => (float[N,96] y) { y = MatMul(x, w) }", {"w": (96, 96)})
    result = quantize(model)
    assert [(layer.node, layer.op) for layer in result.layers] == [("y", "MatMul")]
    assert result.declined == ()
    assert "ranges" not in result.stats  # dynamic layers have none


def test_without_data_a_weight_with_nan_stays_float() -> None:
    weight = np.ones((96, 96), np.float32)
    weight[3, 4] = np.nan
    model = build("net (float[N,96] x) => (float[N,96] y) { [a] y = MatMul(x, w) }", {"w": weight})
    result = quantize(model)
    assert result.changed == Aspect.NONE
    assert result.declined[0].node == "a"
    assert result.declined[0].reason == "the weight holds NaN or infinity"


def test_a_model_without_linear_layers_gets_a_reason() -> None:
    model = build("net (float[N,8] x) => (float[N,8] y) { y = Relu(x) }", {})
    result = quantize(model)
    assert result.changed == Aspect.NONE
    assert result.notes == ("quant found no Conv, Gemm or MatMul",)


def test_without_data_conv_takes_its_ranges_from_batchnorm() -> None:
    model = cnn()
    before = ir.snapshot(model)
    result = quantize(model)
    found = kernels(model)
    # The first Conv reads the input, whose range nobody knows; the second reads BN and Relu.
    assert found["QLinearConv"] == 1
    assert found["QLinearGlobalAveragePool"] == 1
    assert ("stem", "the range of its input or output is unknown") in {
        (d.node, d.reason) for d in result.declined
    }
    # statistics of random weights on normal inputs are not those that the BN states, so ranges
    # may saturate; the order of the outputs is what remains
    feed = feeds(before, 1, {"N": 32})[0]
    one, two = outputs(before, feed)[0], outputs(model, feed)[0]
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.9


def test_without_data_a_conv_without_batchnorm_stays_float() -> None:
    model = build(
        f"net (float[N,3,8,8] x) => (float[N,16,8,8] y) {{ [a] r = {CONV} (x, w) y = Relu(r) }}",
        {"w": (16, 3, 3, 3)},
    )
    result = quantize(model)
    assert result.changed == Aspect.NONE
    assert [d.reason for d in result.declined] == ["the range of its input or output is unknown"]


# The guard


def test_a_layer_that_ruins_the_output_is_left_in_float() -> None:
    """One Conv has a constant offset of a million; after it is subtracted, 8 bits are too few."""
    offset = np.full((1, 16, 1, 1), 1e6, np.float32)
    model = build(
        f"net (float[N,3,12,12] x) => (float[N,16,12,12] y) {{ [good] a = {CONV} (x, w1, b1)"
        f" r = Relu(a) [bad] b = {CONV} (r, w2, big) c = Sub(b, offset) s = Relu(c)"
        f" [last] y = {CONV} (s, w2, b1) }}",
        {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "big": offset.ravel(),
         "offset": np.repeat(offset, 12, 2).repeat(12, 3)},
    )  # fmt: skip
    before, samples = ir.snapshot(model), feeds(model)
    result = quantize(model, samples, float_share=0.6)
    assert "bad" in {d.node for d in result.declined}
    assert "kept in float: the outputs lose too much by it" in {d.reason for d in result.declined}
    assert sqnr_db(before, model, samples) > 12


def test_a_model_that_no_choice_saves_stays_in_float() -> None:
    noise = np.full((16,), 1e6, np.float32)
    model = build(
        f"net (float[N,3,12,12] x) => (float[N,16,12,12] y) {{ [a] c = {CONV} (x, w, big)"
        " y = Sub(c, offset) }",
        {"w": (16, 3, 3, 3), "big": noise, "offset": np.full((1, 16, 12, 12), 1e6, np.float32)},
    )
    result = quantize(model, feeds(model))
    assert result.changed == Aspect.NONE
    assert any("dB" in d.reason for d in result.declined)
