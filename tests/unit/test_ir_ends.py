"""Static input shapes, and models that are cut at inputs and outputs."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import ConfigError
from onnxslim.runtime.session import open_session

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x, float[N, 3] s, float[M] unread) => (float[N, 3] y, int64[2] size)
<float[4, 3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}> {
  t = MatMul(x, w)
  r = Relu(t)
  y = Add(r, s)
  size = Shape(x)
}
"""
X = np.arange(8, dtype=np.float32).reshape(2, 4) - 3
S = np.ones((2, 3), np.float32)


@pytest.fixture
def model() -> ir.Model:
    return ir.parse_text(TEXT)


def shapes(model: ir.Model) -> dict[str, list[int | str | None]]:
    ends = (*model.graph.inputs, *model.graph.outputs)
    return {
        str(v.name): [d if isinstance(d, int) else d.value for d in v.shape or ()] for v in ends
    }


def test_a_size_goes_wherever_its_name_stands(model: ir.Model) -> None:
    ir.set_input_shapes(model, {"x": (2, 4)})
    ir.verify(model)
    assert shapes(model) == {"x": [2, 4], "s": [2, 3], "unread": ["M"], "y": [2, 3], "size": [2]}


def test_minus_one_leaves_a_size(model: ir.Model) -> None:
    ir.set_input_shapes(model, {"x": (-1, 4), "unread": (5,)})
    assert shapes(model) == {
        "x": ["N", 4],
        "s": ["N", 3],
        "unread": [5],
        "y": ["N", 3],
        "size": [2],
    }


def test_a_replaced_size_makes_other_output_shapes() -> None:
    model = ir.parse_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 4] x) => (float[1, 4] y)'
        "{ t = Neg(x) y = Neg(t) }"
    )
    ir.set_input_shapes(model, {"x": (3, 4)})
    assert shapes(model) == {"x": [3, 4], "y": [3, 4]}
    assert open_session(model).run({"x": np.zeros((3, 4), np.float32)})["y"].shape == (3, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"X": (2, 4)}, "no input 'X': did you mean 'x'\\? There is: x, s, unread"),
        ({"x": (2, 4, 1)}, r"x:2,4,1 has 3 sizes; expected 2, since the input is \[N, 4\]"),
        ({"x": (-2, 4)}, "x:-2,4 has a negative size; -1 leaves a size as it is"),
        ({"x": (2, 4), "s": (3, 3)}, "'N' would be 2 and 3; it is one size"),
        ({"x": (2, 5)}, r"the model does not work with the input shapes x \[2, 5\]: .*MatMul"),
    ],
)
def test_shapes_that_do_not_fit(
    model: ir.Model, given: dict[str, tuple[int, ...]], message: str
) -> None:
    before = ir.checksum(model)
    with pytest.raises(ConfigError, match=message):
        ir.set_input_shapes(model, given)
    assert ir.checksum(model) == before


def test_an_inner_value_becomes_the_output(model: ir.Model) -> None:
    expected = open_session(model, extra_outputs=["r"]).run({"x": X, "s": S, "unread": X[0]})["r"]
    ir.cut(model, outputs=("r",))
    ir.verify(model)
    assert [node.op_type for node in model.graph] == ["MatMul", "Relu"]
    assert shapes(model) == {"x": ["N", 4], "unread": ["M"], "r": ["N", 3]}
    assert model.graph.outputs[0].dtype == ir.DataType.FLOAT
    np.testing.assert_array_equal(open_session(model).run({"x": X, "unread": X[0]})["r"], expected)


def test_an_inner_value_becomes_the_input(model: ir.Model) -> None:
    ir.cut(model, inputs=("r",), outputs=("y",))
    ir.verify(model)
    assert shapes(model) == {"r": ["N", 3], "s": ["N", 3], "unread": ["M"], "y": ["N", 3]}
    got = open_session(model).run({"r": S, "s": S, "unread": X[0]})["y"]
    np.testing.assert_array_equal(got, S + S)


def test_a_weight_becomes_an_input(model: ir.Model) -> None:
    ir.cut(model, inputs=("x", "w"), outputs=("t",))
    ir.verify(model)
    assert [v.name for v in model.graph.inputs] == ["x", "w", "unread"]
    assert not model.graph.initializers


def test_types_behind_names_are_casts(model: ir.Model) -> None:
    ir.cut(model, inputs=("x:fp16",), outputs=("r:fp16", "size:int32"))
    ir.verify(model)
    got = open_session(model).run({"x": X.astype(np.float16), "unread": X[0]})
    assert {name: str(value.dtype) for name, value in got.items()} == {
        "r": "float16",
        "size": "int32",
    }
    assert got["size"].tolist() == [2, 4]
    full = open_session(ir.parse_text(TEXT), extra_outputs=["r"])
    exact = full.run({"x": X, "s": S, "unread": X[0]})["r"]
    np.testing.assert_array_equal(got["r"], exact.astype(np.float16))  # small whole numbers


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ((), ("R",), "outputs: no value 'R': did you mean 'r'\\?"),
        ((), ("r", "r"), "outputs: 'r' is named twice"),
        ((), ("r:fp12",), "outputs: r:fp12: expected one of fp16, float16"),
        ((), ("x:fp16",), "outputs: 'x' is an input, whose type cannot be another one"),
        (("q",), (), "inputs: no value 'q'"),
    ],
)
def test_cuts_that_cannot_be(
    model: ir.Model, inputs: tuple[str, ...], outputs: tuple[str, ...], message: str
) -> None:
    before = ir.checksum(model)
    with pytest.raises(ConfigError, match=message):
        ir.cut(model, inputs=inputs, outputs=outputs)
    assert ir.checksum(model) == before


def test_nothing_named_changes_nothing(model: ir.Model) -> None:
    before = ir.checksum(model)
    ir.cut(model)
    assert ir.checksum(model) == before
