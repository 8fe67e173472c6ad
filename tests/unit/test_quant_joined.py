"""Models that are quantized in part already: kept, not quantized twice, and joined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Editor, Model
from onnxslim.passes.quant.remove import to_float
from onnxslim.pipeline.analysis import Aspect
from onnxslim.targets import get_target
from tests.quantizing import any_size, build, feeds, kernels, operators, quantize, sqnr_db

CONV = "Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
CHAIN = (
    "net (float[N,3,8,8] x) => (float[N,8,8,8] y)"
    f" {{ [first] a = {CONV} (x, w1) r = Relu(a) [middle] b = {CONV} (r, w2) s = Relu(b)"
    f" [last] y = {CONV} (s, w3) }}"
)
WEIGHTS = {"w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "w3": (8, 16, 3, 3)}


def foreign(model: Model) -> Model:
    """The model as somebody else would have saved it: nothing is remembered of what was float."""
    made = ir.snapshot(model)
    for node in ir.nodes(made):
        for value in node.outputs:
            value.meta.clear()
    return made


def in_part(*floats: str) -> tuple[Model, Model]:
    """The float model, and one in which all but these layers is quantized by another tool."""
    model = build(CHAIN, WEIGHTS)
    before = ir.snapshot(model)
    others = replace(any_size(get_target("ort-cpu")), rounds=frozenset())  # which write plain Conv
    quantize(model, feeds(model), others, scheme="int8", skip=floats)
    return before, foreign(model)


@pytest.mark.parametrize("floats", [("first",), ("middle",), ("last",), ("first", "last")])
def test_what_is_float_is_quantized_with_the_integers_beside_it(floats: tuple[str, ...]) -> None:
    before, model = in_part(*floats)
    kept = {n: v.const_value for n, v in model.graph.initializers.items() if n.endswith(".int8")}
    assert len(kept) == 3 - len(floats)
    result = quantize(model, feeds(model), scheme="int8")
    assert {row.node for row in result.layers} == set(floats)
    assert {d.reason for d in result.declined} == {"the weight is quantized already"}
    found = kernels(model)
    assert found["QLinearConv"] == 3
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1  # the ends of the model
    assert operators(model)["QuantizeLinear"] == 4  # one per tensor, none twice
    for name, tensor in kept.items():
        assert model.graph.initializers[name].const_value is tensor
    assert sqnr_db(before, model, feeds(model)) > 25


def test_without_samples_the_integers_beside_a_layer_tell_its_ranges() -> None:
    _, model = in_part("middle")
    result = quantize(model, scheme="int8")
    assert [row.node for row in result.layers] == ["middle"]
    assert sum(name.endswith(".int8") for name in model.graph.initializers) == 3
    assert operators(model)["QuantizeLinear"] == 4


def test_taking_ours_out_again_leaves_what_was_there() -> None:
    _, model = in_part("middle")
    before, samples = ir.snapshot(model), feeds(model)
    quantize(model, samples, scheme="int8")
    assert to_float(model, Editor(model)) > 0
    ir.verify(model)
    assert operators(model) == operators(before)
    assert sqnr_db(before, model, samples) > 100


def test_a_model_quantized_elsewhere_stays_as_it_is() -> None:
    _, model = in_part()
    before = ir.checksum(model)
    for scheme in ("auto", "int8", "dynamic", "fp16"):
        assert quantize(model, feeds(model), scheme=scheme).changed == Aspect.NONE
        assert ir.checksum(model) == before


def test_a_zero_point_that_would_undo_a_relu_is_not_taken() -> None:
    """Integers below the zero point stand for negative numbers, which a Relu before it cut off."""
    before, model = in_part("middle")
    s = next(v for n in model.graph for v in n.outputs if ir.op(n) == "Relu" and v.name == "s")
    (use,) = s.uses()
    assert ir.op(use.node) == "QuantizeLinear"
    editor = Editor(model)
    pair = [use.node, *(u.node for u in use.node.outputs[0].uses())]
    zero = editor.initializer(model.graph, "elsewhere", np.array(7, np.uint8))
    editor.rewire([(node, 2) for node in pair], zero)
    quantize(model, feeds(model), scheme="int8")
    assert sqnr_db(before, model, feeds(model)) > 25
