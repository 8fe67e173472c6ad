"""HardSwish in integers, and layers that are too small for them: groups, first layers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Editor, Model
from onnxslim.passes.quant.remove import to_float
from onnxslim.targets import get_target
from tests.quantizing import build, feeds, kernels, operators, outputs, quantize, sqnr_db

WEIGHTS = {"w": (8, 3, 3, 3), "b": (8,), "v": (6, 8, 1, 1), "c": (6,)}
LAYERS = (
    "net (float[N,3,9,9] x) => (float[N,6,7,7] y)"
    " {{ [one] a = Conv(x, w, b) {} [two] y = Conv(h, v, c) }}"
)
WRITTEN = {
    "operator": ("[act] h = HardSwish(a)", 17),
    "gate": ("g = HardSigmoid <alpha = 0.16666667> (a) h = Mul(g, a)", 17),
    "old gate": ("g = HardSigmoid <alpha = 0.16666667> (a) h = Mul(a, g)", 11),
    "written out": ("s = Add(a, three) k = Clip(s, zero, six) m = Mul(a, k) h = Div(m, six)", 17),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_hard_swish_between_layers_is_two_integer_kernels(name: str) -> None:
    activation, opset = WRITTEN[name]
    model = build(LAYERS.format(activation), WEIGHTS, opset)
    before, samples = ir.snapshot(model), feeds(model)
    result = quantize(model, samples, scheme="int8")
    assert result.stats["int8_layers"] == 2
    found = kernels(model)
    assert (found["QLinearConv"], found["QLinearAdd"], found["QLinearMul"]) == (2, 1, 1)
    assert sqnr_db(before, model, samples) > 30


def test_a_gate_becomes_the_operator_again() -> None:
    model = build(LAYERS.format(WRITTEN["operator"][0]), WEIGHTS)
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, samples, scheme="int8")
    to_float(model, Editor(model))
    assert operators(model) - Counter(["Identity"]) == operators(before)  # of the output
    assert [n.name for n in model.graph if ir.op(n) == "HardSwish"] == ["act"]
    np.testing.assert_array_equal(outputs(before, samples[0])[0], outputs(model, samples[0])[0])


def test_a_hard_swish_in_float_stays_as_it_is() -> None:
    model = build(LAYERS.format(WRITTEN["operator"][0]), WEIGHTS)
    quantize(model, feeds(model), scheme="int8", skip=("act",))
    assert (operators(model)["HardSwish"], operators(model)["Mul"]) == (1, 0)


def test_other_gates_are_not_taken_for_it() -> None:
    activation = "g = HardSigmoid <alpha = 0.2> (a) h = Mul(g, a)"
    model = build(LAYERS.format(activation), WEIGHTS)
    quantize(model, feeds(model), scheme="int8")
    assert operators(model)["HardSigmoid"] == 1


def test_what_the_gate_cuts_takes_no_integers() -> None:
    """Far below -3 all is 0: with or without such inputs the outputs are as good."""
    deep = np.full(8, -30, np.float32)
    model = build(
        LAYERS.format(WRITTEN["operator"][0]),
        {**WEIGHTS, "b": np.where(np.arange(8) < 2, deep, 0).astype(np.float32)},
    )
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, samples, scheme="int8", ranges="minmax")
    assert sqnr_db(before, model, samples) > 30


def groups(inputs: int, outputs: int, count: int) -> Model:
    body = f"[one] h = Conv <group = {count}> (x, w) [two] y = Conv(h, v)"
    return build(
        f"net (float[N,{inputs * count},9,9] x) => (float[N,4,7,7] y) {{ {body} }}",
        {"w": (outputs * count, inputs, 3, 3), "v": (4, outputs * count, 1, 1)},
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "int8"), [(1, 1, 2), (1, 2, 1), (4, 4, 1), (8, 8, 2)]
)
def test_small_groups_stay_in_float(inputs: int, outputs: int, int8: int) -> None:
    model = groups(inputs, outputs, 6)
    result = quantize(model, feeds(model), scheme="int8")
    assert result.stats["int8_layers"] == int8
    reasons = {d.node: d.reason for d in result.declined}
    assert reasons == (
        {} if int8 == 2 else {"one": f"with {inputs} inputs per group it is faster in float"}
    )


@pytest.mark.parametrize(("channels", "outputs", "int8"), [(3, 32, 1), (3, 33, 2), (4, 32, 2)])
def test_a_small_first_layer_stays_in_float(channels: int, outputs: int, int8: int) -> None:
    model = build(
        f"net (float[N,{channels},9,9] x) => (float[N,4,7,7] y)"
        " { [one] h = Conv(x, w) [two] y = Conv(h, v) }",
        {"w": (outputs, channels, 3, 3), "v": (4, outputs, 1, 1)},
    )
    result = quantize(model, feeds(model), get_target("ort-cpu"), scheme="int8")
    assert result.stats["int8_layers"] == int8
    assert [d.node for d in result.declined] == ["one"] * (2 - int8)


def test_other_targets_have_rules_of_their_own() -> None:
    rule = get_target("tensorrt").static["Conv"]
    assert (rule.least_group, rule.stem) == (1, (0, 0))
