"""Bad input of quant: what cannot be quantized is named with the reason, and stays in float."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import OptionError
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant import schemes
from onnxslim.passes.quant.audit.accepted import rejected
from onnxslim.passes.quant.quant import Quant
from onnxslim.passes.quant.report import Done
from onnxslim.passes.quant.steps import Job
from onnxslim.pipeline.analysis import AnalysisManager, Aspect
from onnxslim.pipeline.base import Context, Environment, Layer
from onnxslim.runtime.samples import Feed
from onnxslim.targets import get_target
from tests.quantizing import build, feeds, kernels, quantize, sqnr_db

CONV = "Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
TWO = (
    "net (float[N,3,8,8] x, float[N,3,8,8] z) => (float[N,16,8,8] y, float[N,16,8,8] q)"
    f" {{ [a] y = {CONV} (x, w) [b] q = {CONV} (z, w) }}"
)
TWO_WEIGHTS = {"w": (16, 3, 3, 3)}


def zeroed(samples: list[Feed], *names: str) -> list[Feed]:
    return [{k: np.zeros_like(v) if k in names else v for k, v in f.items()} for f in samples]


# Layers that calibration never excites


def test_a_layer_that_sees_only_zeros_is_named_and_stays_float() -> None:
    model = build(TWO, TWO_WEIGHTS)
    before, samples = ir.snapshot(model), feeds(model)
    result = quantize(model, zeroed(samples, "z"))
    assert [row.node for row in result.layers] == ["a"]
    ((node, reason),) = [(d.node, d.reason) for d in result.declined]
    assert node == "b"
    assert reason.startswith("calibration never excites it: '")
    assert reason.endswith("is 0 in all samples")
    one, two = (ir.snapshot(m) for m in (before, model))
    for m in (one, two):
        ir.cut(m, outputs=["q"])
    assert sqnr_db(one, two, samples) > 120  # q is float as before, whatever z holds


def test_layers_around_a_relu_that_never_fires_stay_float() -> None:
    model = build(
        "net (float[N,3,8,8] x) => (float[N,16,8,8] y, float[N,8,8,8] p)"
        f" {{ [a] c = {CONV} (x, w, b) r = Relu(c) [n] y = {CONV} (r, v) [k] p = {CONV} (x, u) }}",
        {"w": (16, 3, 3, 3), "b": np.full(16, -100, np.float32), "v": (16, 16, 3, 3),
         "u": (8, 3, 3, 3)},
    )  # fmt: skip
    result = quantize(model, feeds(model))
    assert [row.node for row in result.layers] == ["k"]
    assert {d.node for d in result.declined} == {"a", "n"}
    assert all("never excites" in d.reason for d in result.declined)


def test_samples_of_zeros_alone_leave_the_model_as_it_was() -> None:
    model = build(TWO, TWO_WEIGHTS)
    before = ir.checksum(model)
    result = quantize(model, zeroed(feeds(model), "x", "z"))
    assert result.changed == Aspect.NONE
    assert ir.checksum(model) == before
    assert {d.node for d in result.declined} == {"a", "b"}
    assert all("never excites" in d.reason for d in result.declined)


# NaN and infinity


def test_where_nan_arises_is_told_when_it_reaches_the_outputs() -> None:
    model = build(
        "net (float[N,64] x) => (float[N,64] y) { [a] h = MatMul(x, w) [l] g = Log(h)"
        " [b] y = MatMul(g, v) }",
        {"w": (64, 64), "v": (64, 64)},
    )
    result = quantize(model, feeds(model))
    assert result.changed == Aspect.NONE
    assert [d.node for d in result.declined] == ["a", "b"]
    assert {d.reason for d in result.declined} == {
        "the float model gives nothing but NaN or infinity for a calibration sample; "
        "the first value that holds such is 'g'"
    }


def test_layers_that_read_infinity_stay_float_and_the_others_do_not() -> None:
    model = build(
        "net (float[N,64] x) => (float[N,64] y, float[N,64] z) { [a] z = MatMul(x, w)"
        " e = Div(x, zero) t = Tanh(e) f = Abs(e) [b] u = MatMul(f, v) k = Tanh(u) m = IsNaN(k)"
        " y = Where(m, t, k) }",
        {"w": (64, 64), "v": (64, 64)},
    )
    samples = feeds(model)
    result = quantize(model, samples, scheme="int8")
    assert [row.node for row in result.layers] == ["a"]
    reasons = {d.node: d.reason for d in result.declined}
    assert set(reasons) == {"b"}
    assert reasons["b"].startswith("the range of 'f' is unknown: it holds NaN or infinity")
    assert reasons["b"].endswith("the first value that does is 'e'")
    assert float(result.stats["output_db"]) > 20


# Weights


def test_one_outlier_channel_does_not_spoil_the_others() -> None:
    weight = np.random.default_rng(0).normal(size=(64, 65)).astype(np.float32)
    weight[:, 5] *= 1e4
    model = build("net (float[N,64] x) => (float[N,65] y) { [a] y = MatMul(x, w) }", {"w": weight})
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, samples)
    assert kernels(model)["MatMulIntegerToFloat"] == 1
    for m in (before, model):
        _append_gather(m, np.delete(np.arange(65), 5))
    assert sqnr_db(before, model, samples) > 30  # the 64 channels beside the outlier


def _append_gather(model: Model, columns: Array) -> None:
    """Keep these columns of the output y alone."""
    editor = Editor(model)
    ids = editor.initializer(model.graph, "others", columns)
    (output,) = model.graph.outputs
    node = editor.node("Gather", [output, ids], outputs=["z"], attributes={"axis": 1})
    producer = output.producer()
    assert producer is not None
    editor.insert_after(producer, [node])
    node.outputs[0].type = output.type
    model.graph.outputs[0] = node.outputs[0]
    ir.verify(model)


@pytest.mark.parametrize("bits", [4, 5])
def test_four_bits_take_odd_sizes(bits: int) -> None:
    model = build(
        f"net (float[N,5,9,7] x) => (float[N,3] y) {{ [a] c = {CONV} (x, w)"
        " p = GlobalAveragePool(c) f = Flatten(p) [h] g = MatMul(f, v) r = Relu(g)"
        " [b] y = MatMul(r, u) }",
        {"w": (7, 5, 3, 3), "v": (7, 37), "u": (37, 3)},
    )
    before, samples = ir.snapshot(model), feeds(model, 16)
    result = quantize(model, samples, scheme="int8", weight_bits=bits, float_share=0.0)
    assert {row.node for row in result.layers} == {"a", "h", "b"}
    # weights of 15 levels give about 20 dB a layer (step^2 / 12 of a normal), three in a row less
    assert sqnr_db(before, model, samples) > 12


@pytest.mark.parametrize("size", [33, 47])
def test_blocks_of_four_bits_leave_odd_sizes_in_float_with_the_reason(size: int) -> None:
    model = build(
        f"net (float[N,{size}] x) => (float[N,161] y)"
        " { [a] h = MatMul(x, w) [b] y = MatMul(h, v) }",
        {"w": (size, 256), "v": (256, 161)},
    )
    before, samples = ir.snapshot(model), feeds(model)
    result = quantize(model, scheme="weight", weight_bits=4)
    assert [row.node for row in result.layers] == ["b"]
    assert {d.node: d.reason for d in result.declined} == {
        "a": f"its {size} inputs are no multiple of 16, the smallest block"
    }
    assert sqnr_db(before, model, samples) > 12


@pytest.mark.parametrize("scheme", ["auto", "int8", "dynamic", "fp16", "bf16"])
def test_odd_sizes_are_quantized_as_well(scheme: str) -> None:
    model = build(
        f"net (float[N,5,9,7] x) => (float[N,3] y) {{ [a] c = {CONV} (x, w)"
        " p = GlobalAveragePool(c) f = Flatten(p) [h] g = MatMul(f, v) r = Relu(g)"
        " [b] y = MatMul(r, u) }",
        {"w": (7, 5, 3, 3), "v": (7, 1001), "u": (1001, 3)},
    )
    before, samples = ir.snapshot(model), feeds(model)
    result = quantize(model, samples, scheme=scheme)
    assert "h" in {row.node for row in result.layers}
    assert sqnr_db(before, model, samples) > 25  # whatever instruction set this machine has


# What the target, the opset or the runtime does not take


def test_a_scheme_that_the_target_lacks_is_refused_with_the_alternatives() -> None:
    model = build(TWO, TWO_WEIGHTS)
    target = replace(get_target("ort-cpu"), name="tiny", schemes=frozenset({"int8", "fp16"}))
    with ThreadPoolExecutor(1) as executor:
        env = Environment(target=target, executor=executor)
        context = Context(env, AnalysisManager(model, env), ir.snapshot(model))
        with pytest.raises(OptionError) as error:
            Quant(scheme="dynamic").run(model, context)
    assert str(error.value) == (
        "quant: scheme=dynamic: the target 'tiny' does not run it; take one of auto, int8, fp16, "
        "or another --target"
    )


def test_an_opset_that_cannot_be_raised_is_told_and_the_model_stays() -> None:
    text = """<ir_version: 8, opset_import: ["" : 12, "local" : 1]>
    net (float[N,4] x) => (float[N,4] y) { y = local.f (x) }
    <domain: "local", opset_import: ["" : 12]>
    f (u) => (v) { v = Softmax <axis = 1> (u) }
    """
    model = ir.parse_text(text)
    before = ir.checksum(model)
    result = quantize(model, feeds(model))
    assert result.changed == Aspect.NONE
    assert ir.checksum(model) == before
    assert result.declined[0].node == "model"
    assert "opset 12 cannot be raised to 13: Softmax" in result.declined[0].reason


def broken(job: Job, done: Done) -> Done:
    """A scheme with a mistake: integers of a type that no kernel of the runtime takes."""
    editor = Editor(job.model)
    node = next(iter(job.model.graph))
    weight = node.inputs[1]
    assert weight is not None
    cast = editor.node("Cast", [weight], outputs=["c"], attributes={"to": 16})
    back = editor.node("Relu", cast.outputs, outputs=["r"])
    last = editor.node("Cast", back.outputs, outputs=["l"], attributes={"to": 1})
    editor.insert_before(node, [cast, back, last])
    editor.rewire([(node, 1)], last.outputs[0])
    return replace(done, layers=(Layer("a", "Conv", "int8 of a kind"),))


def stops(job: Job, done: Done) -> Done:
    """A scheme with a mistake that shows when the model runs: rows that do not fit the samples."""
    editor = Editor(job.model)
    node = next(iter(job.model.graph))
    rows = editor.initializer(job.model.graph, "rows", np.array([7, -1], np.int64))
    flat = editor.node("Reshape", [node.inputs[0], rows], outputs=["flat"])
    back = editor.initializer(job.model.graph, "back", np.array([-1, 3, 8, 8], np.int64))
    image = editor.node("Reshape", [flat.outputs[0], back], outputs=["image"])
    editor.insert_before(node, [flat, image])
    editor.rewire([(node, 0)], image.outputs[0])
    return replace(done, layers=(Layer("a", "Conv", "int8 of a kind"),))


@pytest.mark.parametrize("mistake", [broken, stops])
def test_what_onnx_runtime_rejects_is_taken_back(
    monkeypatch: pytest.MonkeyPatch, mistake: Callable[[Job, Done], Done]
) -> None:
    monkeypatch.setattr(schemes, "SCHEMES", {"int8": (mistake,)})
    model = build(TWO, TWO_WEIGHTS)
    before = ir.checksum(model)
    result = quantize(model, feeds(model), scheme="int8")
    assert result.changed == Aspect.NONE
    assert ir.checksum(model) == before
    assert result.declined[0].node == "model"
    assert "taken back: ONNX Runtime rejects the quantized model" in result.declined[0].reason


def test_a_model_that_the_runtime_could_never_run_tells_nothing_about_quantization() -> None:
    model = ir.parse_text(
        '<ir_version: 8, opset_import: ["" : 17, "vendor" : 1]>'
        " net (float[N,4] x) => (float[N,4] y) { y = vendor.Secret (x) }"
    )
    with ThreadPoolExecutor(1) as executor:
        env = Environment(target=get_target("ort-cpu"), executor=executor)
        assert rejected(model, model, env) is None


@pytest.mark.parametrize("scheme", ["int8", "weight"])
def test_a_model_of_float16_is_told_what_helps(scheme: str) -> None:
    model = build(
        "net (float16[N,64] x) => (float16[N,64] y) { y = MatMul (x, w) }", {"w": (64, 64)}
    )
    weight = ir.array(model.graph.initializers["w"])
    assert weight is not None
    Editor(model).replace_initializer(model.graph.initializers["w"], weight.astype(np.float16))
    samples = [{"x": np.ones((2, 64), np.float16)}] * 4
    result = quantize(model, samples if scheme == "int8" else None, scheme=scheme)
    assert not result.layers
    (why,) = [declined.reason for declined in result.declined]
    assert why.endswith(" is float16: cast{to=float32} before quant makes it float32")


def test_an_output_that_is_a_sequence_is_left_out_of_the_comparison() -> None:
    model = build(
        "net (float[N,64] x) => (float[N,32] y, seq(float[N,32]) s)"
        " { y = MatMul(x, w) s = SequenceConstruct(y) }",
        {"w": (64, 32)},
    )
    assert quantize(model, feeds(model)).stats["int8_layers"] == 1
