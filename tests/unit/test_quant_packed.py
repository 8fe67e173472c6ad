"""Weights of 4 bits stored as int4: fewer bytes, the same kernels, the same outputs."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import DataType, Editor, Model
from onnxslim.passes.quant.remove import to_float
from onnxslim.passes.quant.rewrite.packed import pack, why_not_packed
from onnxslim.pipeline.base import PassResult
from onnxslim.targets import get_target
from tests.quantizing import build, feeds, kernels, operators, outputs, quantize
from tests.unit.test_quant_joined import foreign

NET = (
    "net (float[N,16,12,12] x) => (float[N,10] y)"
    " { a = Conv <kernel_shape = [3, 3]> (x, w, c) r = Relu(a)"
    " d = Conv <kernel_shape = [3, 3], group = 32> (r, k, c2) s = Relu(d)"
    " g = GlobalAveragePool(s) f = Flatten(g) [head] y = Gemm(f, v, b) }"
)
WEIGHTS = {"w": (32, 16, 3, 3), "k": (32, 1, 3, 3), "v": (32, 10), "c": (32,), "c2": (32,)}


def _net() -> Model:
    return build(NET, {**WEIGHTS, "b": (10,)})


def _quantized(**options: object) -> tuple[Model, PassResult]:
    model = _net()
    given = {"scheme": "int8", "weight_bits": 4, "goal": 0.0, "wide_share": 0.0, **options}
    return model, quantize(model, feeds(model), **given)  # type: ignore[arg-type]


def _stored(model: Model) -> dict[str, int]:
    """Numbers of each integer type among the weights."""
    found: dict[str, int] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if (
            tensor is not None
            and tensor.dtype in (DataType.INT4, DataType.INT8)
            and tensor.size > 64
        ):
            found[tensor.dtype.name] = found.get(tensor.dtype.name, 0) + int(tensor.size)
    return found


def test_all_weights_are_int4_and_run_as_integers() -> None:
    model, result = _quantized()
    size = 32 * 16 * 9 + 32 * 9 + 32 * 10
    assert _stored(model) == {"INT4": size}
    assert result.stats["stored_in_4_bits"] == size
    assert result.stats["weight_bits"] == "4:100.00%"
    assert {row.action.split()[0] for row in result.layers} == {"4-bit"}
    found = kernels(model)
    assert (found["QLinearConv"], found["QGemm"]) == (2, 1)
    assert found["Cast"] == found["Conv"] == found["Gemm"] == 0


def test_int4_gives_what_the_bytes_give() -> None:
    model, _ = _quantized()
    bytes_, sample = ir.snapshot(model), feeds(model)[0]
    for node in list(bytes_.graph):
        if ir.op(node) == "Cast":
            editor = Editor(bytes_)
            integers = ir.array(node.inputs[0])
            assert integers is not None
            own = editor.initializer(bytes_.graph, "bytes", integers.astype(np.int8))
            editor.rewire([(use.node, use.idx) for use in node.outputs[0].uses()], own)
            editor.remove_dead()
    assert operators(bytes_)["Cast"] == 0
    assert kernels(bytes_) == kernels(model)
    for one, two in zip(outputs(model, sample), outputs(bytes_, sample), strict=True):
        assert (one == two).all()


@pytest.mark.parametrize(("bits", "kinds"), [(4, {"INT4"}), (5, {"INT8"}), (8, {"INT8"})])
def test_more_bits_stay_bytes(bits: int, kinds: set[str]) -> None:
    model, result = _quantized(weight_bits=bits)
    assert set(_stored(model)) == kinds
    assert ("stored_in_4_bits" in result.stats) == (bits < 8)


def test_the_file_is_read_again_as_it_is() -> None:
    model, _ = _quantized()
    again = foreign(model)
    before, size = operators(again), _stored(again)
    result = quantize(again, feeds(again), scheme="int8")
    assert not result.layers
    assert {d.reason for d in result.declined} == {"the weight is quantized already"}
    assert (operators(again), _stored(again)) == (before, size)


def test_a_layer_beside_int4_takes_its_integers() -> None:
    model, _ = _quantized(skip=("head",))
    again = foreign(model)
    result = quantize(again, feeds(again), scheme="int8")
    assert [row.node for row in result.layers] == ["head"]
    assert kernels(again)["QGemm"] == 1


def test_the_float_model_comes_back() -> None:
    before, (model, _) = _net(), _quantized()
    sample = feeds(before)[0]
    to_float(model, Editor(model))
    ir.verify(model)
    assert operators(model)["Cast"] == operators(model)["DequantizeLinear"] == 0
    assert (outputs(before, sample)[0] == outputs(model, sample)[0]).all()


def test_below_opset_21_they_stay_bytes() -> None:
    model = _net()
    quantize(model, feeds(model), scheme="int8", weight_bits=5, goal=0.0)
    why = why_not_packed(model)
    assert why is not None
    assert "opset 21" in why


def test_without_weights_of_4_bits_there_is_nothing_to_pack() -> None:
    model = _net()
    quantize(model, feeds(model), scheme="int8", rounding="nearest")
    ir.raise_opset(model, 21)
    assert why_not_packed(model) == "no weight has only 4 bits"
    assert pack(Editor(model)) == 0


def test_other_runtimes_get_bytes_and_the_result_says_so() -> None:
    model = _net()
    target = get_target("openvino")
    result = quantize(model, feeds(model), target, scheme="int8", weight_bits=4, goal=0.0)
    assert set(_stored(model)) == {"INT8"}
    assert any("lie in bytes" in note for note in result.notes)
