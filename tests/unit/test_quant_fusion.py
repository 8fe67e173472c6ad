"""What ONNX Runtime makes of each pattern: int8 kernels, and nothing left in float between them."""

from __future__ import annotations

import pytest

from onnxslim import ir
from tests.quantizing import build, feeds, kernels, operators, quantize, sqnr_db

CONV = "Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
W = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "b2": (16,)}
NET = "net (float[N,3,12,12] x) => (float[N,16,12,12] y)"

FLOAT_KERNELS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "Relu", "Clip")

PATTERNS: dict[str, tuple[str, dict[str, int]]] = {
    "conv + relu": (
        f"{NET} {{ a = {CONV} (x, w1, b1) r = Relu(a) y = {CONV} (r, w2, b2) }}",
        {"QLinearConv": 2},
    ),
    "conv + relu6": (
        f"{NET} {{ a = {CONV} (x, w1, b1) r = Clip(a, zero, six) y = {CONV} (r, w2, b2) }}",
        {"QLinearConv": 2},
    ),
    "conv without a bias": (
        f"{NET} {{ a = {CONV} (x, w1) r = Relu(a) y = {CONV} (r, w2) }}",
        {"QLinearConv": 2},
    ),
    "depthwise": (
        f"{NET} {{ a = {CONV} (x, w1, b1) r = Relu(a)"
        " d = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 16> (r, wd, b2)"
        f" s = Relu(d) y = {CONV} (s, w2, b2) }}",
        {"QLinearConv": 3},
    ),
    "residual with relu": (
        f"{NET} {{ a = {CONV} (x, w1, b1) r = Relu(a) b = {CONV} (r, w2, b2) s = Add(b, r)"
        f" t = Relu(s) y = {CONV} (t, w2, b2) }}",
        {"QLinearConv": 3, "QLinearAdd": 1},
    ),
    "concat": (
        f"{NET} {{ a = {CONV} (x, w1, b1) r = Relu(a) b = {CONV} (r, w2, b2)"
        f" c = Concat <axis = 1> (r, b) y = {CONV} (c, w32, b2) }}",
        {"QLinearConv": 3, "QLinearConcat": 1},
    ),
    "max pool": (
        "net (float[N,3,12,12] x) => (float[N,16,6,6] y)"
        f" {{ a = {CONV} (x, w1, b1) r = Relu(a)"
        f" p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r) y = {CONV} (p, w2, b2) }}",
        {"QLinearConv": 2, "NhwcMaxPool": 1},
    ),
    "average pool": (
        "net (float[N,3,12,12] x) => (float[N,16,6,6] y)"
        f" {{ a = {CONV} (x, w1, b1) r = Relu(a)"
        f" p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (r) y = {CONV} (p, w2, b2) }}",
        {"QLinearConv": 2, "QLinearAveragePool": 1},
    ),
    "squeeze and excite": (
        f"{NET} {{ a = {CONV} (x, w1, b1) r = Relu(a) p = GlobalAveragePool(r)"
        " q = Conv (p, ws, b2) h = HardSigmoid <alpha = 0.1666667, beta = 0.5> (q)"
        f" m = Mul(r, h) y = {CONV} (m, w2, b2) }}",
        {"QLinearConv": 3, "QLinearGlobalAveragePool": 1, "QLinearMul": 1},
    ),
    "hard swish": (
        f"{NET} {{ a = {CONV} (x, w1, b1) s = Add(a, three) c = Clip(s, zero, six)"
        f" m = Mul(a, c) d = Div(m, six) y = {CONV} (d, w2, b2) }}",
        {"QLinearConv": 2, "QLinearAdd": 1, "QLinearMul": 1},
    ),
    "swish": (
        f"{NET} {{ a = {CONV} (x, w1, b1) s = Sigmoid(a) m = Mul(a, s) y = {CONV} (m, w2, b2) }}",
        {"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1},
    ),
    "swish, scaled": (
        f"{NET} {{ a = {CONV} (x, w1, b1) s = Sigmoid(a) m = Mul(a, s) d = Div(m, six)"
        f" y = {CONV} (d, w2, b2) }}",
        {"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1},
    ),
    "leaky relu": (
        f"{NET} {{ a = {CONV} (x, w1, b1) s = LeakyRelu(a) y = {CONV} (s, w2, b2) }}",
        {"QLinearConv": 2, "QLinearLeakyRelu": 1},
    ),
    "nearest resize": (
        "net (float[N,3,12,12] x) => (float[N,16,24,24] y)"
        f" {{ a = {CONV} (x, w1, b1) r = Relu(a)"
        f" u = Resize <mode = \"nearest\"> (r, , scales) y = {CONV} (u, w2, b2) }}",
        {"QLinearConv": 2, "Resize": 1},
    ),
    "classifier": (
        "net (float[N,3,12,12] x) => (float[N,10] y)"
        f" {{ a = {CONV} (x, w1, b1) r = Relu(a) p = GlobalAveragePool(r)"
        " f = Flatten(p) y = Gemm <transB = 1> (f, wg, bg) }",
        {"QLinearConv": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1, "Flatten": 1},
    ),
    "two gemms": (
        "net (float[N,32] x) => (float[N,10] y)"
        " { a = Gemm (x, wa, ba) r = Relu(a) y = Gemm <transB = 1> (r, wg, bg) }",
        {"QGemm": 2},
    ),
    "matmul of matrices and a bias": (
        "net (float[N,32] x) => (float[N,16] y) { a = MatMul(x, wa) y = Add(ba, a) }",
        {"QGemm": 1},
    ),
    "matmul": (
        "net (float[N,5,32] x) => (float[N,5,16] y)"
        " { a = MatMul(x, wa) b = Add(a, ba) n = LayerNormalization <axis = -1> (b, ga)"
        " y = MatMul(n, wb) }",
        {"MatMulIntegerToFloat": 2},
    ),
}  # fmt: skip

MORE = {
    "wd": (16, 1, 3, 3), "ws": (16, 16, 1, 1), "w32": (16, 32, 3, 3), "wg": (10, 16), "bg": (10,),
    "wa": (32, 16), "ba": (16,), "wb": (16, 16), "ga": (16,),
}  # fmt: skip


def _model(name: str) -> ir.Model:
    import numpy as np

    scales = np.array([1, 1, 2, 2], np.float32)
    return build(PATTERNS[name][0], {**W, **MORE, "scales": scales})


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_becomes_int8_kernels_alone(name: str) -> None:
    model = _model(name)
    before, samples = ir.snapshot(model), feeds(model)
    result = quantize(model, samples)
    found = kernels(model)
    assert {kernel: found[kernel] for kernel in PATTERNS[name][1]} == PATTERNS[name][1]
    assert not [kernel for kernel in FLOAT_KERNELS if found[kernel]]
    assert found["QuantizeLinear"] <= (2 if name == "matmul" else 1)  # the input's
    assert not result.declined
    # 8-bit rounding of a tensor that fills its range gives about 40 dB; a few in a row stay
    # well above 20 dB, while a wrong scale or zero point gives less than 10
    assert sqnr_db(before, model, samples) > 20


def test_the_weights_are_stored_as_int8_and_once_when_shared() -> None:
    model = _model("residual with relu")
    quantize(model, feeds(model))
    names = {str(v.name): v.dtype for v in model.graph.initializers.values()}
    eight_bits = [name for name, dtype in names.items() if dtype == ir.DataType.INT8]
    assert sorted(n for n in eight_bits if "int8" in n) == ["w1.int8", "w2.int8"]
    assert not [
        v.name
        for v in model.graph.initializers.values()
        if v.const_value is not None and v.dtype == ir.DataType.FLOAT and v.const_value.size > 16
    ]


def test_a_conv_at_the_output_keeps_the_name_and_is_int8() -> None:
    model = _model("conv + relu")
    quantize(model, feeds(model))
    (output,) = model.graph.outputs
    assert output.name == "y"
    assert ir.op(output.producer()) == "DequantizeLinear"  # type: ignore[arg-type]


def test_relu_and_scalar_maps_cost_nothing() -> None:
    model = _model("swish, scaled")
    quantize(model, feeds(model))
    assert operators(model)["Div"] == 0  # in the DequantizeLinear now
    scales = {str(v.name): ir.array(v) for v in model.graph.initializers.values()}
    q, dq = scales["d.scale"], scales["d.affine.scale"]
    assert q is not None
    assert dq is not None
    assert float(dq) == pytest.approx(float(q) / 6, rel=1e-6)  # float32 rounding
