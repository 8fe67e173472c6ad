"""What is quantized besides Conv, Gemm and MatMul of the main graph, and what says why not."""

from __future__ import annotations

import numpy as np
import pytest

import onnxslim
from onnxslim import ir
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.recurrent import quantize_gates
from onnxslim.passes.quant.remove import to_float
from onnxslim.pipeline.analysis import Aspect
from onnxslim.runtime.samples import Feed
from onnxslim.targets import get_target
from tests.quantizing import build, feeds, kernels, operators, outputs, quantize, sqnr_db

# LSTM


def lstm(directions: int = 1, more: str = "", outputs: str = "y, h, c", hidden: int = 64) -> Model:
    declared = ", ".join(
        f"float[{'T,' if name == 'y' else ''}{directions},N,{hidden}] {name}"
        for name in outputs.replace(" ", "").split(",")
        if name
    )
    if directions == 2:
        more += ' direction = "bidirectional",'
    body = (
        f"net (float[T,N,48] x) => ({declared}) {{ [rec] {outputs} = LSTM <{more} hidden_size ="
        f" {hidden}> (x, w, r, b) }}"
    )
    gates = 4 * hidden
    rng = np.random.default_rng(0)
    sizes = {"w": (gates, 48), "r": (gates, hidden), "b": (2 * gates,)}
    weights: dict[str, Array] = {
        k: (rng.normal(size=(directions, *v)) / 8).astype(np.float32) for k, v in sizes.items()
    }
    return build(body, weights)


SIZES = {"T": 12, "N": 3}


@pytest.mark.parametrize("directions", [1, 2])
def test_an_lstm_becomes_dynamic_int8(directions: int) -> None:
    model = lstm(directions)
    before, samples = ir.snapshot(model), feeds(model, sizes=SIZES)
    result = quantize(model)
    assert [(row.node, row.op, row.action) for row in result.layers] == [
        ("rec", "LSTM", "dynamic int8")
    ]
    assert kernels(model)["DynamicQuantizeLSTM"] == 1
    assert ir.weight_bytes(model) < 0.3 * ir.weight_bytes(before)
    for one, two in zip(outputs(before, samples[0]), outputs(model, samples[0]), strict=True):
        error = float(((one - two) ** 2).sum() / (one**2).sum())
        assert 10 * np.log10(1 / error) > 30  # weights and inputs of 8 bits: 35 to 40 dB


def test_with_calibration_samples_an_lstm_of_the_main_graph_is_dynamic_too() -> None:
    model = lstm()
    quantize(model, feeds(model, sizes=SIZES))
    assert kernels(model)["DynamicQuantizeLSTM"] == 1


def test_an_lstm_stays_float_where_only_standard_operators_may_be_written() -> None:
    model = lstm()
    text = ir.to_text(model)
    result = quantize(model, portable=True)
    assert ir.to_text(model) == text
    assert [(d.node, d.reason) for d in result.declined] == [
        ("rec", "portable=true rules out com.microsoft::DynamicQuantizeLSTM")
    ]


def test_absent_outputs_of_an_lstm_stay_absent() -> None:
    model = lstm(outputs=", h")
    before, samples = ir.snapshot(model), feeds(model, sizes=SIZES)
    quantize(model)
    assert kernels(model)["DynamicQuantizeLSTM"] == 1
    assert sqnr_db(before, model, samples) > 30


def test_an_lstm_comes_back_as_it_was() -> None:
    model = lstm()
    before, samples = ir.snapshot(model), feeds(model, sizes=SIZES)
    quantize(model)
    assert to_float(model, Editor(model)) == 1
    ir.verify(model)
    assert operators(model) == {"LSTM": 1}
    for one, two in zip(outputs(before, samples[0]), outputs(model, samples[0]), strict=True):
        assert (one == two).all()


def test_an_lstm_that_cannot_be_quantized_says_why() -> None:
    small = quantize(lstm(hidden=8), scheme="dynamic")
    assert [(d.node, d.reason) for d in small.declined] == [
        ("rec", "its 1792 weights are too few to gain anything")
    ]
    model = lstm()
    ir.array(model.graph.initializers["w"])[0, 3, 4] = np.nan  # type: ignore[index]
    assert quantize(model).declined[0].reason == "the weight holds NaN or infinity"
    first = build(
        "net (float[N,T,48] x) => (float[N,T,1,64] y)"
        " { [rec] y = LSTM <layout = 1, hidden_size = 64> (x, w, r) }",
        {"w": (1, 256, 48), "r": (1, 256, 64)},
    )
    assert quantize(first).declined[0].reason == "layout=1 (batch first) has no int8 kernel"


def test_skipping_one_lstm_without_a_first_output_leaves_the_others() -> None:
    one, two = "[one] , h = LSTM <hidden_size = 64> (x, w, r)", "[two] , g = LSTM"
    model = build(
        "net (float[T,N,48] x) => (float[1,N,64] h, float[1,N,64] g)"
        f" {{ {one} {two} <hidden_size = 64> (x, v, s) }}",
        {"w": (1, 256, 48), "r": (1, 256, 64), "v": (1, 256, 48), "s": (1, 256, 64)},
    )
    result = quantize(model, skip=("one",))
    assert [row.node for row in result.layers] == ["two"]


@pytest.mark.parametrize("per_channel", [True, False])
def test_gates_are_rounded_to_the_nearest_of_their_scale(per_channel: bool) -> None:
    weight = np.random.default_rng(0).normal(size=(2, 8, 5)).astype(np.float32)
    weight[0, 3] = 0
    values, scale = quantize_gates(weight, per_channel)
    assert values.shape == (2, 5, 8)
    assert scale.shape == ((2, 8) if per_channel else (2,))
    wide = scale[:, None, :] if per_channel else scale[:, None, None]
    back = np.transpose(values * wide, (0, 2, 1))
    assert (np.abs(back - weight) <= np.transpose(wide, (0, 2, 1)) * 0.5001).all()


# What the target has no kernel for


NO_KERNEL: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "GRU": (
        "net (float[T,N,48] x) => (float[T,1,N,64] y) { [a] y = GRU <hidden_size = 64> (x, w, r) }",
        {"w": (1, 192, 48), "r": (1, 192, 64)},
    ),
    "ConvTranspose": (
        "net (float[N,8,6,6] x) => (float[N,8,12,12] y)"
        " { [a] y = ConvTranspose <strides = [2, 2], kernel_shape = [2, 2]> (x, w) }",
        {"w": (8, 8, 2, 2)},
    ),
}


@pytest.mark.parametrize("op", NO_KERNEL)
@pytest.mark.parametrize("scheme", ["auto", "int8", "dynamic"])
def test_operators_without_an_int8_kernel_are_named(op: str, scheme: str) -> None:
    model = build(*NO_KERNEL[op])
    result = quantize(model, feeds(model), scheme=scheme)
    assert result.changed == Aspect.NONE
    assert [(d.node, d.reason) for d in result.declined] == [
        ("a", f"ort-cpu has no int8 kernel for {op}")
    ]


# Embeddings


def embedding(more: str = "", ends: str = "", table: Array | None = None) -> Model:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2048, 128)) * 10.0 ** rng.uniform(-2, 2, (2048, 1))
    return build(
        f"net (int64[N,T] x) => (float[N,T,128] y{ends}) {{ [rows] e = Gather(table, x)"
        f" y = Relu(e) {more} }}",
        {"table": rows.astype(np.float32) if table is None else table, "w": (128, 128)},
    )


def ids(count: int = 2) -> list[Feed]:
    rng = np.random.default_rng(1)
    return [{"x": rng.integers(-2048, 2048, (2, 9))} for _ in range(count)]


@pytest.mark.parametrize("scheme", ["auto", "int8", "dynamic"])
def test_a_large_embedding_becomes_int8_with_a_scale_per_row(scheme: str) -> None:
    model = embedding()
    before = ir.snapshot(model)
    result = quantize(model, ids(), scheme=scheme)
    assert [(row.node, row.op) for row in result.layers] == [("rows", "Gather")]
    assert ir.weight_bytes(model) < 0.27 * ir.weight_bytes(before)
    for feed in ids():
        one, two = outputs(before, feed)[0], outputs(model, feed)[0]
        # half a step of each row's own scale, whatever the magnitudes of other rows
        table = ir.array(before.graph.initializers["table"])
        assert table is not None
        step = np.abs(table[feed["x"]]).max(axis=-1, keepdims=True) / 127
        assert (np.abs(one - two) <= 0.5001 * step).all()


def test_an_embedding_of_several_gathers_is_stored_once_and_comes_back() -> None:
    model = embedding("[more] z = Gather(table, x)", ", float[N,T,128] z")
    before = ir.snapshot(model)
    result = quantize(model, ids(), scheme="dynamic")
    assert [row.node for row in result.layers] == ["rows", "more"]
    assert len(model.graph.initializers) == 2
    assert to_float(model, Editor(model)) == 2
    ir.verify(model)
    for one, two in zip(outputs(before, ids()[0]), outputs(model, ids()[0]), strict=True):
        assert (one == two).all()


def test_an_embedding_that_float_nodes_read_too_stays() -> None:
    model = embedding("[tied] z = ReduceMax(table)", ", float[1,1] z")
    result = quantize(model, ids())
    assert result.changed == Aspect.NONE
    assert [(d.node, d.reason) for d in result.declined] == [
        ("rows", "its table stays float32 for 'tied' (ReduceMax) as well")
    ]


def test_small_and_skipped_and_broken_embeddings_stay() -> None:
    small = np.ones((64, 128), np.float32)
    assert quantize(embedding(table=small), None).changed == Aspect.NONE
    assert quantize(embedding(), skip=("rows",)).changed == Aspect.NONE
    broken = np.full((2048, 128), np.nan, np.float32)
    assert [d.reason for d in quantize(embedding(table=broken)).declined] == [
        "the table holds NaN or infinity"
    ]


# Tied weights


def test_a_weight_of_several_dynamic_layers_is_stored_once() -> None:
    model = build(
        "net (float[N,96] x) => (float[N,96] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, w) }",
        {"w": (96, 96)},
    )
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, scheme="dynamic")
    assert kernels(model)["DynamicQuantizeMatMul"] == 2
    assert len(model.graph.initializers) == 3  # integers, scales, zero points
    assert sqnr_db(before, model, samples) > 30


def test_a_weight_of_several_static_layers_is_stored_once() -> None:
    model = build(
        "net (float[N,96] x) => (float[N,96] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, w) }",
        {"w": (96, 96)},
    )
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, samples, scheme="int8")
    assert kernels(model)["QLinearMatMul"] == 1  # with the Relu
    assert kernels(model)["MatMulIntegerToFloat"] == 1
    assert sum(v.dtype == ir.DataType.INT8 for v in model.graph.initializers.values()) == 2
    assert sqnr_db(before, model, samples) > 30


def test_a_weight_used_with_different_factors_is_not_mixed_up() -> None:
    model = build(
        "net (float[N,96] x) => (float[N,96] y) { a = Gemm <alpha = 2.0> (x, w) r = Relu(a)"
        " y = Gemm (r, w) }",
        {"w": (96, 96)},
    )
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, scheme="dynamic")
    assert sqnr_db(before, model, samples) > 30


# Subgraphs and functions


FUNCTION = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
net (float[N,96] x) => (float[N,96] y) { a = local.block (x) y = local.block (a) }
<domain: "local", opset_import: ["" : 17]>
block (u) => (v) {
  c = Constant <value = float[96] {BIAS}> ()
  i = Constant <value_int = 96> ()
  k = Constant <value_int = 0> ()
  w0 = EyeLike <dtype = 1> (u)
  [inner] v = Add (u, c)
}
"""


def function_model() -> Model:
    """A function, called twice, that multiplies by a constant matrix."""
    text = FUNCTION.replace("{BIAS}", "{" + ", ".join(["0.5"] * 96) + "}")
    model = ir.parse_text(text)
    editor = Editor(model)
    (function,) = model.functions.values()
    add = next(node for node in function if ir.op(node) == "Add")
    weight = np.random.default_rng(0).normal(size=(96, 96)).astype(np.float32) / 10
    held = editor.initializer(function, "w", weight)
    product = editor.node("MatMul", [add.inputs[0], held], outputs=["product"])
    product.name = "layer"
    editor.insert_before(add, [product])
    editor.rewire([(add, 0)], product.outputs[0])
    editor.remove_dead()
    ir.verify(model)
    return model


@pytest.mark.parametrize("calibrated", [True, False])
def test_layers_of_functions_are_quantized_dynamically(calibrated: bool) -> None:
    model = function_model()
    before, samples = ir.snapshot(model), feeds(model)
    result = quantize(model, samples if calibrated else None)
    assert [(row.node, row.action) for row in result.layers] == [("layer", "dynamic int8")]
    assert len(model.functions) == 1
    assert sqnr_db(before, model, samples) > 30


def test_a_run_calibrates_what_functions_hold() -> None:
    model = function_model()
    samples = feeds(model)
    report = onnxslim.compress(model, passes="quant", calib=samples, allow_slower=True).report
    assert [row.action for row in report.passes[0].layers] == [
        "int8 weights (96 channels), uint8 input"
    ] * 2
    assert report.macs.before == report.macs.after == samples[0]["x"].size * 2 * 96
    assert "in place of the 2 nodes" in " ".join(report.passes[0].notes)


def test_an_lstm_of_a_branch_is_quantized() -> None:
    model = build(
        "net (float[T,N,48] x, float[1] s) => (float[T,1,N,64] y) {"
        " t = ReduceSum <keepdims = 0> (s) c = Greater(t, zero) y = If (c) <"
        " then_branch = t () => (float[T,1,N,64] p) { [rec] p = LSTM <hidden_size = 64> (x, w, r) }"
        ", else_branch = e () => (float[T,1,N,64] q) { [gru] q = GRU <hidden_size = 64> (x, v, u)"
        " } > }",
        {"w": (1, 256, 48), "r": (1, 256, 64), "v": (1, 192, 48), "u": (1, 192, 64)},
    )
    result = quantize(model)
    assert [row.node for row in result.layers] == ["rec"]
    assert [d.node for d in result.declined] == ["gru"]
    outputs(model, feeds(model, 1, SIZES)[0])


@pytest.mark.parametrize("height", [3, 16])
def test_a_product_of_images_with_channels_last_is_smoothed_along_them(height: int) -> None:
    loud = np.ones(16, np.float32)
    loud[5] = 100
    gain = {}
    for smooth in ("off", "on"):
        model = build(
            f"net (float[N,{height},5,16] x) => (float[N,{height},5,24] y)"
            " { a = Mul(x, k) [m] y = MatMul(a, w) }",
            {"w": (16, 24), "k": loud},
        )
        before, samples = ir.snapshot(model), feeds(model)
        stats = quantize(model, samples, scheme="int8", smooth=smooth).stats
        assert (stats["int8_layers"], stats["smoothed"]) == (1, int(smooth == "on"))
        quiet = [{"x": feed["x"] * (np.arange(16) != 5).astype(np.float32)} for feed in samples]
        gain[smooth] = sqnr_db(before, model, quiet)
    assert gain["on"] > gain["off"] + 6


def test_the_mean_of_a_product_is_corrected_in_the_add_behind_it() -> None:
    body = "net (float[N,3,5,16] x) => (float[N,3,5,24] y) { a = Relu(x) [m] p = MatMul(a, w)"
    shift = {}
    for correct in (True, False):
        model = build(body + " y = Add(b, p) }", {"w": (16, 24), "b": (24,)})
        before, samples = ir.snapshot(model), feeds(model)
        quantize(model, samples, scheme="int8", weight_bits=7, bias_correction=correct)
        shift[correct] = _shift_of_means(before, model, samples)
        to_float(model, Editor(model))
        assert _shift_of_means(before, model, samples) == 0
    assert shift[True] < 0.3 * shift[False]


def _shift_of_means(one: Model, other: Model, samples: list[Feed]) -> float:
    """The largest over the output channels."""
    means = [
        np.concatenate([outputs(model, feed)[0] for feed in samples]).mean(axis=(0, 1, 2))
        for model in (one, other)
    ]
    return float(np.abs(means[0] - means[1]).max())


# Processors that saturate sums of two products


@pytest.mark.parametrize("op", ["MatMul", "LSTM"])
def test_dynamic_weights_have_as_many_bits_as_the_target_adds_up(op: str) -> None:
    bodies: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
        "MatMul": ("net (float[N,96] x) => (float[N,96] y) { y = MatMul(x, w) }", {"w": (96, 96)}),
        "LSTM": (
            "net (float[T,N,48] x) => (float[T,1,N,64] y)"
            " { y = LSTM <hidden_size = 64> (x, w, r) }",
            {"w": (1, 256, 48), "r": (1, 256, 64)},
        ),
    }
    highest: dict[str, int] = {}
    for name in ("ort-cpu-vnni", "ort-cpu-avx2"):
        model = build(*bodies[op])
        quantize(model, target=get_target(name), scheme="dynamic")
        arrays = [ir.array(value) for value in model.graph.initializers.values()]
        integers = [
            a.astype(int) for a in arrays if a is not None and a.dtype == np.int8 and a.any()
        ]
        highest[name] = max(int(np.abs(a).max()) for a in integers)
    assert highest == {"ort-cpu-vnni": 127, "ort-cpu-avx2": 63}
