"""Every Q and DQ of ONNX Runtime's optimized graph is accounted for; what is left is named."""

from __future__ import annotations

import pytest

from onnxslim import ir
from onnxslim.ir import Model
from onnxslim.passes.quant.audit.audit import Audit, audit
from onnxslim.passes.quant.audit.coverage import conversions, coverage
from onnxslim.pipeline.base import Declined, Layer
from onnxslim.runtime.session import optimized_graph
from tests.quantizing import build, feeds, kernels, quantize

CONV = "Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
W = {"w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3)}
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\nnet (float[N,8] x) => (float[N,8] y)'
CONSTANTS = "<float s = {0.1}, uint8 z = {128}>"


def parsed(body: str) -> Model:
    return ir.parse_text(f"{HEAD} {CONSTANTS} {{ {body} }}")


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)", {"end": 2}),
        (
            "e = Erf(x) q = QuantizeLinear(e, s, z) d = DequantizeLinear(q, s, z) y = Erf(d)",
            {"idle": 2},
        ),
        (
            "e = Erf(x) q = QuantizeLinear(e, s, z) c = Cast <to = 6> (q) n = Abs(c)"
            " u = Cast <to = 2> (n) d = DequantizeLinear(u, s, z) y = Erf(d)",
            {"border": 2},
        ),
    ],
)
def test_each_conversion_has_a_place(body: str, places: dict[str, int]) -> None:
    found = audit(optimized_graph(parsed(body)), {})
    assert found.places == places
    assert found.q_and_dq == sum(places.values())


def test_an_operator_between_that_stays_float_is_left_too() -> None:
    model = parsed(
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) [add] a = Add(d, d)"
        " [erf] y = Erf(a)"
    )
    assert audit(optimized_graph(model), {"add": "Add"}).left == {"add"}
    assert audit(optimized_graph(model), {}).left == frozenset()


def test_nodes_without_names_are_told_apart() -> None:
    model = build(
        "net (float[N,3,12,12] x) => (float[N,16,12,12] y)"
        f" {{ a = {CONV} (x, w1) r = Relu(a) y = {CONV} (r, w2) }}",
        W,
    )
    result = quantize(model, feeds(model))
    assert kernels(model)["QLinearConv"] == 2
    assert result.stats["int8_layers"] == 2


def test_what_stays_float_is_named_with_its_reason() -> None:
    model = build(
        "net (float[N,3,12,12] x) => (float[N,16,12,12] y)"
        f" {{ [stem] a = {CONV} (x, w1) r = Relu(a) [body] y = {CONV} (r, w2) }}",
        W,
    )
    result = quantize(model, feeds(model), skip=("stem",))
    assert result.notes[0] == (
        "int8: 1 of 2 Conv; stem float: kept in float by the options ops and skip"
    )


def test_only_the_first_few_are_named() -> None:
    body = " ".join(f"[n{i}] v{i} = Erf(x)" for i in range(5))
    model = parsed(f"{body} [last] y = Abs(x)")
    rest = [Declined(f"n{i}", "why") for i in range(5)] + [Declined("model", "no node")]
    assert coverage(model, [Layer("last", "Abs", "int8")], rest) == (
        "int8: 1 of 1 Abs, 0 of 5 Erf; n0 float: why; n1 float: why; n2 float: why; 2 more in float"
    )


def test_nothing_is_said_where_no_conversion_runs() -> None:
    assert conversions(Audit(3, {}, frozenset())) is None
    assert conversions(Audit(3, {"border": 2, "idle": 1}, frozenset())) == (
        "QuantizeLinear and DequantizeLinear that run: "
        "2 between integers and float operators, 1 back to back"
    )


def test_the_trial_that_becomes_the_model_leaves_names_as_they_were() -> None:
    model = build(
        "net (float[N,3,12,12] x) => (float[N,16,12,12] y)"
        f" {{ a = {CONV} (x, w1) r = Relu(a) b = {CONV} (r, w2) [last] y = Sigmoid(b) }}",
        W,
    )
    quantize(model, feeds(model))
    names = [node.name for node in model.graph if ir.op(node) in ("Conv", "Sigmoid")]
    assert [name or "" for name in names] == ["", "", "last"]
