"""MatMul written as ONNX Runtime's own kernel: bias inside, the numbers of Q/DQ and Add."""

from __future__ import annotations

import pytest

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.remove import to_float
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import open_session
from onnxslim.targets import get_target
from tests.quantizing import any_size, build, feeds, kernels, operators, outputs, quantize

PRODUCT = "com.microsoft::MatMulIntegerToFloat"
WEIGHTS = {"w": (16, 24), "b": (24,), "v": (24, 16), "c": (16,), "b3": (1, 1, 24)}
MLP = (
    "net (float[N,S,16] x) => (float[N,S,16] y) { [up] a = MatMul(x, w) [bias] s = Add(a, b)"
    " e = Erf(s) [down] d = MatMul(e, v) y = Add(c, d) }"
)


def _run(model: Model, feed: Feed) -> Array:
    """The first output as ONNX Runtime computes it with all of its fusions."""
    return next(iter(open_session(model).run(feed).values()))


def _pair(body: str) -> tuple[Model, Model]:
    """The same model with the runtime's own operators and with standard ones."""
    own, portable = build(body, WEIGHTS), build(body, WEIGHTS)
    for model, kept in ((own, False), (portable, True)):
        quantize(model, feeds(model, sizes={"S": 3}), portable=kept)
    return own, portable


def test_the_kernel_takes_the_bias() -> None:
    own, portable = _pair(MLP)
    assert operators(own) == {"QuantizeLinear": 2, PRODUCT: 2, "Erf": 1}
    assert [len(node.inputs) for node in own.graph if ir.op(node) == PRODUCT] == [7, 7]
    assert kernels(own)["MatMulIntegerToFloat"] == 2
    assert kernels(own)["Add"] == 0
    assert kernels(portable)["Add"] == 2


def test_it_gives_the_same_numbers_as_q_dq_and_add() -> None:
    own, portable = _pair(MLP)
    for feed in feeds(own, sizes={"S": 5}):
        assert (_run(own, feed) == _run(portable, feed)).all()


def test_portable_writes_standard_operators_alone() -> None:
    _, portable = _pair(MLP)
    assert {node.domain for node in ir.nodes(portable)} == {""}
    assert operators(portable)["MatMul"] == 2
    assert operators(portable)["DequantizeLinear"] == 4


def test_the_user_is_told_what_reads_the_file() -> None:
    model = build(MLP, WEIGHTS)
    notes = quantize(model, feeds(model, sizes={"S": 3})).notes
    assert any(PRODUCT in note and "portable=true" in note for note in notes)
    model = build(MLP, WEIGHTS)
    notes = quantize(model, feeds(model, sizes={"S": 3}), portable=True).notes
    assert not any("portable" in note for note in notes)


@pytest.mark.parametrize("name", ["openvino", "qnn", "tensorrt"])
def test_other_targets_get_standard_operators(name: str) -> None:
    model = build(MLP, WEIGHTS)
    quantize(model, feeds(model, sizes={"S": 3}), any_size(get_target(name)), scheme="int8")
    assert {node.domain for node in ir.nodes(model)} == {""}


@pytest.mark.parametrize(
    ("body", "adds"),
    [
        pytest.param(
            "net (float[N,S,16] x) => (float[N,S,24] y) { a = MatMul(x, w) y = Add(a, b3) }",
            0,
            id="constant of three axes",
        ),
        pytest.param(
            "net (float[N,S,16] x) => (float[N,S,24] y) { a = MatMul(x, w) y = Add(a, one) }",
            1,
            id="one number for all columns",
        ),
        pytest.param(
            "net (float[N,S,16] x) => (float[N,S,24] y, float[N,S,24] a)"
            " { a = MatMul(x, w) y = Add(a, b) }",
            1,
            id="the product is an output",
        ),
        pytest.param(
            "net (float[N,S,16] x) => (float[N,S,24] y)"
            " { a = MatMul(x, w) s = Add(a, b) y = Mul(s, a) }",
            1,
            id="the product is read twice",
        ),
    ],
)
def test_what_is_no_bias_stays_an_add(body: str, adds: int) -> None:
    own, portable = _pair(body)
    assert operators(own)[PRODUCT] == 1
    assert operators(own)["Add"] == adds
    feed = feeds(own, 1, sizes={"S": 3})[0]
    assert (_run(own, feed) == _run(portable, feed)).all()


@pytest.mark.parametrize("between", ["a", "Relu(a)"])
def test_a_product_that_becomes_integers_is_left_to_the_runtime(between: str) -> None:
    body = (
        "net (float[N,S,16] x) => (float[N,S,16] y)"
        f" {{ a = MatMul(x, w) r = {between} y = MatMul(r, v) }}"
    ).replace("r = a y = MatMul(r, v)", "y = MatMul(a, v)")
    own, _ = _pair(body)
    assert kernels(own)["QLinearMatMul"] == 1
    assert kernels(own)["MatMulIntegerToFloat"] == operators(own)[PRODUCT] == 1


def test_constants_of_more_axes_than_the_product_stay_outside() -> None:
    own, _ = _pair("net (float[N,16] x) => (float[1,N,24] y) { a = MatMul(x, w) y = Add(a, b3) }")
    assert operators(own)["Add"] == 1


@pytest.mark.parametrize("smooth", ["off", "on"])
def test_the_float_model_comes_back(smooth: str) -> None:
    model = build(MLP, WEIGHTS)
    before, samples = ir.snapshot(model), feeds(model, sizes={"S": 3})
    quantize(model, samples, smooth=smooth)
    assert operators(model)[PRODUCT] == 2
    to_float(model, Editor(model))
    ir.verify(model)
    assert [ir.label(node) for node in model.graph if ir.op(node) == "MatMul"] == ["up", "down"]
    assert operators(model) == operators(before)
    assert (outputs(before, samples[0])[0] == outputs(model, samples[0])[0]).all()


def test_what_was_written_is_read_and_left_alone() -> None:
    model = build(MLP, WEIGHTS)
    quantize(model, feeds(model, sizes={"S": 3}))
    again = ir.load(ir.to_bytes(model))
    text = ir.to_text(again)
    result = quantize(again, feeds(again, sizes={"S": 3}))
    assert not result.changed
    assert ir.to_text(again) == text
    facts = Facts(again)
    assert [facts.rank(v) for node in again.graph for v in node.outputs] == [3] * len(again.graph)
