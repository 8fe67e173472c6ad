"""What static quantization writes for each target: types, zero points, places of Q and DQ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.seen import observed_shapes
from onnxslim.errors import OptionError
from onnxslim.ir import Array, Model, Node
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import Optimize
from onnxslim.targets import INT8, Form, StaticRule, Target, get_target
from tests.quantizing import any_size, build, feeds, operators, outputs, quantize, sqnr_db

CONV = "Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
WEIGHTS = {
    "w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "b2": (16,), "wg": (10, 16),
    "bg": (10,),
}  # fmt: skip
RESIDUAL = (
    "net (float[N,3,12,12] x) => (float[N,10] y)"
    f" {{ a = {CONV} (x, w1, b1) r = Relu(a) b = {CONV} (r, w2, b2) s = Add(b, r) t = Relu(s)"
    " p = GlobalAveragePool(t) f = Flatten(p) y = Gemm <transB = 1> (f, wg, bg) }"
)
AS_WRITTEN: Optimize = "basic"
"""Q and DQ run one by one: what ONNX Runtime fuses here may saturate or, for float8, be wrong;
that is not what these targets compute."""

CASES = [
    ("tensorrt", "int8", "INT8", "INT8"),
    ("tensorrt", "fp8", "FLOAT8E4M3FN", "FLOAT8E4M3FN"),
    ("openvino", "int8", "UINT8", "INT8"),
    ("qnn", "int8", "UINT8", "INT8"),
    ("qnn", "int16", "UINT16", "INT8"),
    ("ort-cpu-avx2", "int8", "UINT8", "INT8"),
]


def _residual(opset: int = 17) -> Model:
    return build(RESIDUAL, WEIGHTS, opset)


def _quantized(target: Target, scheme: str = "int8", model: Model | None = None) -> Model:
    model = _residual() if model is None else model
    result = quantize(model, feeds(model), any_size(target), scheme=scheme)
    assert result.stats["int8_layers"], result.declined
    return model


def _constant(node: Node, index: int) -> Array:
    found = ir.array(node.inputs[index])
    assert found is not None
    return found


def _maker(node: Node, index: int) -> str:
    """The operator that makes an input; empty for inputs and initializers of the graph."""
    value = node.inputs[index]
    producer = value.producer() if value is not None else None
    return "" if producer is None else ir.op(producer)


def _pairs(model: Model) -> Iterator[tuple[Node, Node]]:
    """Each Q with a DQ that reads it."""
    for node in model.graph:
        if ir.op(node) == "QuantizeLinear":
            yield from ((node, use.node) for use in node.outputs[0].uses())


def _named(model: Model, op: str) -> list[Node]:
    return [node for node in model.graph if ir.op(node) == op]


@pytest.mark.parametrize(("name", "scheme", "activation", "weight"), CASES)
def test_types_follow_the_target(name: str, scheme: str, activation: str, weight: str) -> None:
    model = _quantized(get_target(name), scheme)
    zeros = {ir.constant(q.inputs[2]).dtype.name for q in _named(model, "QuantizeLinear")}  # type: ignore[union-attr]
    assert zeros == {activation}
    for layer in [*_named(model, "Conv"), *_named(model, "Gemm")]:
        assert [_maker(layer, index) for index in (0, 1)] == ["DequantizeLinear"] * 2
        dq = layer.inputs[1].producer()  # type: ignore[union-attr]
        assert dq is not None
        stored = ir.constant(dq.inputs[0])
        assert stored is not None
        assert stored.dtype.name == weight
        assert not np.any(_constant(dq, 2).astype(np.float32))  # zero points of weights are 0


@pytest.mark.parametrize("name", ["openvino", "qnn", "tensorrt"])
def test_the_default_scheme_is_int8_where_a_target_has_nothing_else_to_choose(name: str) -> None:
    model = _quantized(get_target(name), "auto")
    assert operators(model) == operators(_quantized(get_target(name), "int8"))


@pytest.mark.parametrize(("name", "scheme", "activation", "weight"), CASES)
def test_the_outputs_stay_close(name: str, scheme: str, activation: str, weight: str) -> None:
    before = _residual()
    after = _quantized(get_target(name), scheme)
    # 8-bit integers give about 40 dB a tensor, fp8 with its 3 bits of mantissa about 31; three
    # layers in a row stay above 20, while a wrong scale or zero point gives less than 10
    assert sqnr_db(before, after, feeds(before), AS_WRITTEN) > 20


@pytest.mark.parametrize("name", ["tensorrt", "openvino", "qnn"])
def test_a_dequantize_has_the_parameters_of_its_quantize(name: str) -> None:
    body = (
        f"net (float[N,3,12,12] x) => (float[N,16,12,12] y) {{ a = {CONV} (x, w1, b1)"
        f" r = Relu(a) d = Div(r, six) y = {CONV} (d, w2, b2) }}"
    )
    model = _quantized(get_target(name), model=build(body, WEIGHTS))
    pairs = list(_pairs(model))
    assert len(pairs) >= 2
    assert all(q.inputs[1] is dq.inputs[1] and q.inputs[2] is dq.inputs[2] for q, dq in pairs)


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_tensorrt_is_symmetric_with_float_biases(scheme: str) -> None:
    model = _quantized(get_target("tensorrt"), scheme)
    quantizers = _named(model, "QuantizeLinear")
    assert all(not np.any(_constant(q, 2).astype(np.float32)) for q in quantizers)
    assert all(_constant(q, 1).ndim == 0 for q in quantizers)
    for conv in _named(model, "Conv"):
        assert _constant(conv, 2).dtype == np.float32
        assert _constant(conv.inputs[1].producer(), 1).shape == (16,)  # type: ignore[union-attr,arg-type]


def test_tensorrt_quantizes_the_identity_branch_alone() -> None:
    model = _quantized(get_target("tensorrt"))
    (add,) = _named(model, "Add")
    assert [_maker(add, 0), _maker(add, 1)] == ["Conv", "DequantizeLinear"]
    assert not [q for q in _named(model, "QuantizeLinear") if _maker(q, 0) == "Conv"]


def test_tensorrt_leaves_an_add_without_a_layer_in_float() -> None:
    body = (
        f"net (float[N,3,12,12] x) => (float[N,16,12,12] y) {{ a = {CONV} (x, w1, b1) r = Relu(a)"
        f" q = Sigmoid(a) s = Add(q, r) y = {CONV} (s, w2, b2) }}"
    )
    model = _quantized(get_target("tensorrt"), model=build(body, WEIGHTS))
    (add,) = _named(model, "Add")
    assert "DequantizeLinear" not in (_maker(add, 0), _maker(add, 1))


def test_qnn_quantizes_outputs_and_has_one_scale_for_a_gemm() -> None:
    model = _quantized(get_target("qnn"))
    (gemm,) = _named(model, "Gemm")
    assert _constant(gemm.inputs[1].producer(), 1).shape == ()  # type: ignore[union-attr,arg-type]
    assert _constant(gemm.inputs[2].producer(), 0).dtype == np.int32  # type: ignore[union-attr,arg-type]
    readers = {ir.op(use.node) for use in gemm.outputs[0].uses()}
    assert readers == {"QuantizeLinear"}


def test_sixteen_bits_are_closer_than_eight() -> None:
    before = _residual()
    eight, sixteen = (_quantized(get_target("qnn"), s) for s in ("int8", "int16"))
    samples = feeds(before)
    assert sqnr_db(before, sixteen, samples) > sqnr_db(before, eight, samples)
    assert sixteen.opset_imports[""] >= 21


@pytest.mark.parametrize("name", ["ort-cpu-avx2", "openvino-avx2"])
def test_weights_for_machines_without_vnni_have_seven_bits(name: str) -> None:
    model = _quantized(get_target(name))
    integers = [
        array
        for value in model.graph.initializers.values()
        if (array := ir.array(value)) is not None and array.dtype == np.int8 and array.ndim > 1
    ]
    assert len(integers) == 3
    assert max(int(np.abs(array.astype(int)).max()) for array in integers) == 63


DECONV = "ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]"
GROWING = (
    "net (float[N,3,6,6] x) => (float[N,4,24,24] y)"
    f" {{ a = {CONV} (x, w1, b1) r = Relu(a) [up] u = {DECONV}> (r, w2, b2) s = Relu(u)"
    f" [grouped] y = {DECONV}, group = 2> (s, w3) }}"
)


@pytest.mark.parametrize("name", ["tensorrt", "openvino", "qnn"])
@pytest.mark.parametrize("options", [{}, {"weight_bits": 4}])
def test_a_transposed_convolution_has_a_scale_for_each_output(
    name: str, options: dict[str, int]
) -> None:
    sizes = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 8, 2, 2), "b2": (8,), "w3": (8, 2, 2, 2)}
    model = build(GROWING, sizes)
    samples, before = feeds(model, 6), ir.snapshot(model)
    result = quantize(
        model, samples, any_size(get_target(name)), scheme="int8", goal=0.0, aim=0.0,
        weight_bits=options.get("weight_bits", 8),
    )  # fmt: skip
    up, grouped = _named(model, "ConvTranspose")
    assert [_maker(up, 0), _maker(up, 1)] == ["DequantizeLinear", "DequantizeLinear"]
    weight = up.inputs[1].producer()  # type: ignore[union-attr]
    assert weight is not None
    assert ir.attribute(weight, "axis", 0) == 1
    assert _constant(weight, 1).shape == (8,)
    assert _constant(weight, 0).shape == (16, 8, 2, 2)
    assert _maker(grouped, 1) == ""
    reasons = {d.node: d.reason for d in result.declined}
    assert reasons == {"grouped": "its groups have scales that lie on no axis of the weight"}
    found = sqnr_db(before, model, samples, AS_WRITTEN)  # TensorRT has 7 bits behind a Relu
    assert found > (18 if options else 33)


def test_means_behind_a_transposed_convolution_are_those_of_the_float_model() -> None:
    text = f"net (float[N,16,6,6] x) => (float[N,8,12,12] y) {{ r = Relu(x) y = {DECONV}> (r, w) }}"
    models = [build(text, {"w": (16, 8, 2, 2)}) for _ in range(3)]
    samples = feeds(models[0], 6)
    for corrected, model in zip((False, True), models[1:], strict=True):
        quantize(
            model, samples, get_target("openvino"), scheme="int8", goal=0.0, aim=0.0,
            weight_bits=4, rounding="nearest", bias_correction=corrected,
        )  # fmt: skip
    means = [
        np.mean([outputs(model, feed)[0].mean(axis=(0, 2, 3)) for feed in samples], axis=0)
        for model in models
    ]
    before, after = (np.abs(mean - means[0]).max() for mean in means[1:])
    assert after < 0.2 * before


def test_work_around_floats_of_8_bits_is_counted() -> None:
    model = _residual()
    result = quantize(model, feeds(model), any_size(get_target("tensorrt")), scheme="fp8")
    assert result.notes == ("fp8: 2 of 2 Conv, 1 of 1 Gemm",)
    shapes = observed_shapes(model, feeds(model)[0])
    assert {shapes[str(dq.outputs[0].name)] for dq in _named(model, "DequantizeLinear")} >= {
        (2, 3, 12, 12), (16, 3, 3, 3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "scheme", "there"),
    [("ort-cpu", "fp8", "int8"), ("openvino", "int16", "int8"), ("qnn", "fp8", "int8, int16")],
)
def test_a_scheme_that_a_target_lacks_is_refused(name: str, scheme: str, there: str) -> None:
    model = _residual()
    with pytest.raises(OptionError, match=f"scheme={scheme}: the target '{name}'.*{there}"):
        quantize(model, feeds(model), get_target(name), scheme=scheme)
    assert operators(model)["QuantizeLinear"] == 0


def test_a_target_is_added_as_a_table() -> None:
    """Gemm alone, symmetric int8 on both sides, its output always quantized."""
    chip = Target(
        name="chip",
        static={
            "Gemm": StaticRule("linear", "required", "fc", weight=1, bias=2, per_channel=False)
        },
        forms={"int8": Form(INT8, replace(INT8, low=-7, high=7), bias="float32", affine=False)},
        local=False,
        schemes=frozenset({"int8"}),
    )
    model = _quantized(chip)
    assert operators(model)["QuantizeLinear"] == 2  # input and output of the Gemm
    (gemm,) = _named(model, "Gemm")
    integers = _constant(gemm.inputs[1].producer(), 0)  # type: ignore[union-attr,arg-type]
    assert int(np.abs(integers.astype(int)).max()) == 7
    assert {_maker(conv, 1) for conv in _named(model, "Conv")} == {""}


WEIGHTS_ALONE = (
    "net (int64[N,S] ids) => (float[N,S,128] y) { e = Gather(t, ids) [up] h = MatMul(e, wa)"
    " r = Relu(h) [odd] o = MatMul(r, wo) s = Relu(o) [down] d = MatMul(s, wd)"
    " w = Transpose <perm = [1, 0]> (t) [head] y = MatMul(d, w) }"
)


def _decoder() -> tuple[Model, list[Feed]]:
    sizes = {"t": (128, 192), "wa": (192, 256), "wo": (256, 96), "wd": (96, 192)}
    rng = np.random.default_rng(2)
    samples: list[Feed] = [{"ids": rng.integers(0, 128, (2, 9))} for _ in range(6)]
    return build(WEIGHTS_ALONE, sizes, 21), samples


def test_weights_alone_for_tensorrt_are_int4_in_blocks_without_zero_points() -> None:
    model, samples = _decoder()
    before = ir.snapshot(model)
    result = quantize(
        model, samples, get_target("tensorrt"), scheme="weight", weight_bits=4, goal=0.0
    )
    assert [row.node for row in result.layers] == ["up", "odd", "head"]
    blocks = {
        node.name: (ir.attribute(dq, "axis", 1), ir.attribute(dq, "block_size", 0), len(dq.inputs))
        for node in _named(model, "MatMul")
        if (dq := node.inputs[1].producer()) is not None  # type: ignore[union-attr]
    }
    assert blocks == {"up": (0, 64, 2), "odd": (0, 64, 2), "head": (0, 64, 2)}
    codes = [_constant(dq, 0) for dq in _named(model, "DequantizeLinear")]
    assert {array.dtype.name for array in codes} == {"int4"}
    assert [tuple(array.shape) for array in codes] == [(192, 256), (256, 96), (192, 128)]
    reasons = {declined.node: declined.reason for declined in result.declined}
    assert "its 96 inputs are no multiple of 64" in reasons["down"]
    assert "looks up no rows" in next(r for r in reasons.values() if "rows" in r)  # the table
    assert any("64 inputs" in note for note in result.notes)  # 32 were asked for
    assert sqnr_db(before, model, samples, AS_WRITTEN) > 14  # 4 bits


def test_a_goal_leaves_layers_in_float_where_the_target_has_no_more_bits() -> None:
    model, samples = _decoder()
    before = ir.snapshot(model)
    quantize(
        model, samples, get_target("tensorrt"), scheme="weight", weight_bits=4,
        goal=25.0, wide_share=1.0, float_share=1.0,
    )  # fmt: skip
    codes = [_constant(dq, 0) for dq in _named(model, "DequantizeLinear")]
    assert 0 < len(codes) < 3
    assert {array.dtype.name for array in codes} == {"int4"}
    assert sqnr_db(before, model, samples, AS_WRITTEN) >= 25


@pytest.mark.parametrize(
    ("bits", "form", "reason"),
    [
        (8, "standard", "takes weights alone in at most 4 bits"),
        (4, "nbits", "take weight_form=standard"),
    ],
)
def test_weights_alone_that_tensorrt_does_not_read_are_refused(
    bits: int, form: str, reason: str
) -> None:
    model, samples = _decoder()
    target, scheme = get_target("tensorrt"), "weight"
    with pytest.raises(OptionError, match=reason):
        quantize(model, samples, target, scheme=scheme, weight_bits=bits, weight_form=form)
    assert not _named(model, "DequantizeLinear")


ATTENTION = (
    "net (float[N,4,8] x) => (float[N,4,8] y) { q = MatMul(x, wq) k = MatMul(x, wk)"
    " t = Transpose <perm = [0, 2, 1]> (k) [scores] s = MatMul(q, t) p = Softmax(s)"
    " [mixed] m = MatMul(p, x) y = MatMul(m, wo) }"
)


@pytest.mark.parametrize("name", ["tensorrt", "openvino", "qnn"])
def test_products_of_computed_tensors_read_integers_where_the_target_takes_them(name: str) -> None:
    model = build(ATTENTION, dict.fromkeys(("wq", "wk", "wo"), (8, 8)))
    before = ir.snapshot(model)
    _quantized(get_target(name), model=model)
    for label in ("scores", "mixed"):
        (product,) = (node for node in model.graph if node.name == label)
        assert [_integers(product, index) for index in (0, 1)] == [True, True]
    assert sqnr_db(before, model, feeds(before), AS_WRITTEN) > 20


def test_products_of_computed_tensors_stay_in_float_on_cpus() -> None:
    model = build(ATTENTION, dict.fromkeys(("wq", "wk", "wo"), (8, 8)))
    _quantized(get_target("ort-cpu"), model=model)
    (product,) = (node for node in model.graph if node.name == "scores")
    assert not _integers(product, 0)


def _integers(node: Node, index: int) -> bool:
    """Whether an input comes from a DequantizeLinear, through what only moves numbers."""
    value = node.inputs[index]
    while value is not None and (maker := value.producer()) is not None:
        if ir.op(maker) != "Transpose":
            return ir.op(maker) == "DequantizeLinear"
        value = maker.inputs[0]
    return False
