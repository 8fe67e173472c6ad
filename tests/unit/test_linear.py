from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.columns import Window
from onnxslim.analyses.linear import Linear, linear, linear_layers, transposed_conv
from onnxslim.ir import Array
from tests.quantizing import build

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


def the_layer(text: str) -> Linear | str:
    return linear(ir.parse_text(f"{HEAD} {text}").graph[-1])


def test_weight_seen_through_constant_and_identity() -> None:
    layer = the_layer("""g (float[1, 2] x) => (float[1, 2] y) {
      c = Constant <value = float[2, 2] {1, 2, 3, 4}> ()
      w = Identity (c)
      y = MatMul (x, w)
    }""")
    assert isinstance(layer, Linear)
    assert layer.matrix().tolist() == [[[1, 3], [2, 4]]]
    assert (layer.in_features, layer.out_features, layer.bias_index) == (2, 2, None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("(float[2, 2] x, float[2, 2] w) => (float[2, 2] y) { y = MatMul (x, w) }",
         "the weight is computed, not a constant"),
        ("(float[2, 2] x) => (float[2, 2] y) <float[2, 2] w = {1,2,3,4}> { y = MatMul (w, x) }",
         "the constant is on the left, so it mixes rows and not features"),
        ("(float[2, 2] x) => (float[2] y) <float[2] w = {1, 2}> { y = MatMul (x, w) }",
         "the weight has rank 1, expected 2"),
        ("(float[2, 2] x) => (float[1, 2, 2] y) <float[1, 2, 2] w = {1,2,3,4}>"
         " { y = MatMul (x, w) }", "the weight has rank 3, expected 2"),
        ("(int32[2, 2] x) => (int32[2, 2] y) <int32[2, 2] w = {1,2,3,4}> { y = MatMul (x, w) }",
         "the weight is INT32, not a float of 16 bits or more"),
        ("(float[2, 2] x) => (float[2, 2] y) <float[2, 2] w = {1,2,3,4}>"
         " { y = Gemm <alpha = 0.0> (x, w) }",
         "a factor alpha or beta of zero leaves the weight or the bias without effect"),
        ("(float[2, 2] x) => (float[2, 2] y) { y = Relu (x) }", "Relu is not a linear layer"),
        ("(float[2, 2] x, float[2, 2] w) => (float[2, 2] y) <float[2, 2] w = {1,2,3,4}>"
         " { y = MatMul (x, w) }", "the weight is computed, not a constant"),
    ],
)  # fmt: skip
def test_what_is_no_layer_says_why(body: str, reason: str) -> None:
    assert the_layer(f"g {body}") == reason


@pytest.mark.parametrize(
    ("shape", "values", "expected"),
    [("[2]", "{1, 2}", [2, 4]), ("[1, 2]", "{1, 2}", [2, 4]), ("[1]", "{1}", [2, 2]),
     ("[2, 1]", "{1, 2}", None), ("[2, 2]", "{1, 2, 3, 4}", None)],
)  # fmt: skip
def test_gemm_bias_belongs_to_outputs_or_is_unknown(
    shape: str, values: str, expected: list[float] | None
) -> None:
    layer = the_layer(f"""g (float[2, 2] x) => (float[2, 2] y)
      <float[2, 2] w = {{1, 0, 0, 1}}, float{shape} b = {values}>
      {{ y = Gemm <beta = 2.0> (x, w, b) }}""")
    assert isinstance(layer, Linear)
    bias = layer.bias_vector()
    assert (None if bias is None else bias.tolist()) == expected
    if expected is not None:
        assert layer.from_bias(np.array(expected)).tolist() == [v / 2 for v in expected]


def test_wrong_shapes_are_refused() -> None:
    layer = the_layer("""g (float[1, 2] x) => (float[1, 3] y) <float[2, 3] w = {1,2,3,4,5,6}>
      { y = MatMul (x, w) }""")
    assert isinstance(layer, Linear)
    with pytest.raises(ValueError, match=r"matrix of \(1, 2, 3\) for a weight of \(2, 3\)"):
        layer.from_matrix(np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match="for 3 outputs"):
        layer.from_bias(np.zeros(2))


def test_float16_is_widened_and_restored() -> None:
    layer = the_layer("""g (float16[1, 2] x) => (float16[1, 2] y)
      { w = Constant <value = float16[2, 2] {1, 2, 3, 4}> () y = MatMul (x, w) }""")
    assert isinstance(layer, Linear)
    assert layer.matrix().dtype == np.float32
    assert layer.from_matrix(layer.matrix()).dtype == np.float16


def test_layers_of_subgraphs_are_found_and_refusals_listed() -> None:
    model = ir.parse_text(f"""{HEAD} g (bool c, float[2, 2] x) => (float[2, 2] y)
      <float[2, 2] w = {{1, 2, 3, 4}}> {{
      a = MatMul (x, w)
      y = If (c) <then_branch = t () => (float[2, 2] p) {{ p = MatMul (a, w) }},
                  else_branch = e () => (float[2, 2] q) {{ q = MatMul (a, x) }}>
    }}""")
    layers, declined = linear_layers(model)
    assert [layer.tap.tensor for layer in layers] == ["x", "a"]
    assert [d.reason for d in declined] == ["the weight is computed, not a constant"]


@pytest.mark.parametrize(
    ("auto_pad", "expected"),
    [("SAME_UPPER", ((0, 1),)), ("SAME_LOWER", ((1, 0),)), ("VALID", ((0, 0),))],
)
def test_automatic_padding(auto_pad: str, expected: tuple[tuple[int, int], ...]) -> None:
    window = Window((3,), (2,), (1,), (0, 0), auto_pad)
    assert window.padding((6,)) == expected


def test_a_transposed_convolution_is_a_matrix_from_all_its_taps_to_an_output() -> None:
    rng = np.random.default_rng(0)
    weight: Array = rng.normal(size=(3, 4, 2, 5)).astype(np.float32)
    body = "{ y = ConvTranspose <strides = [2, 3]> (x, w) }"
    (node,) = build(f"net (float[1,3,6,6] x) => (float[1,4,M,N] y) {body}", {"w": weight}).graph
    layer = transposed_conv(node)
    assert isinstance(layer, Linear)
    assert (layer.out_features, layer.in_features, layer.spacing) == (4, 3 * 2 * 5, 6)
    matrix = layer.matrix()
    assert np.array_equal(matrix[0, 1].reshape(3, 2, 5), weight[:, 1])
    assert np.array_equal(layer.from_matrix(matrix), weight)
    assert linear(node) == "ConvTranspose is not a linear layer"  # its input has no such rows
