"""float32 to float16 and back: types, casts where operators need them, numbers at the edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxslim
from onnxslim import ir
from onnxslim.errors import ConfigError
from onnxslim.ir import DataType
from onnxslim.ir.floats import convert_floats, retype_ends
from onnxslim.pipeline.fingerprint import fingerprint
from onnxslim.runtime.session import open_session

HALF, SINGLE = DataType.FLOAT16, DataType.FLOAT


def parsed(body: str, weights: str = "", ends: str = "(float[N, 4] x) => (float[N, 3] y)") -> Any:
    held = f"<{weights}>" if weights else ""
    return ir.parse_text(f'<ir_version: 8, opset_import: ["" : 17]> g {ends} {held} {{ {body} }}')


MODELS = {
    "matmul": ("t = MatMul(x, w) y = Softmax(t)", "float[4, 3] w = {1,0,0,0,1,0,0,0,1,1,1,1}"),
    "shared weight": (
        "s = ReduceMean <axes = [0]> (w) t = MatMul(x, w) y = Add(t, s)",
        "float[4, 3] w = {1,0,0,0,1,0,0,0,1,1,1,1}",
    ),
    "constant node": ("c = Constant <value = float[3] {1, 2, 3}> ()  s = Slice(x, a, b, k) "
                      "y = Add(s, c)", "int64[1] a = {0}, int64[1] b = {3}, int64[1] k = {1}"),
    "resize keeps its scales": (
        "u = Unsqueeze(x, k) r = Resize(u, , sc) q = Squeeze(r, k) y = Slice(q, a, b, k)",
        "int64[1] a = {0}, int64[1] b = {3}, int64[1] k = {1}, float[3] sc = {1, 1, 2}",
    ),
    "quantization stays": (
        "q = QuantizeLinear(x, sc, z) d = DequantizeLinear(q, sc, z) y = Slice(d, a, b, k)",
        "int64[1] a = {0}, int64[1] b = {3}, int64[1] k = {1}, float sc = {0.5}, uint8 z = {128}",
    ),
    "sizes stay exact": (
        "sh = Shape(x) f = Cast <to = 1> (sh) g2 = Mul(f, two) i = Cast <to = 7> (g2) "
        "h = Div(i, itwo) h0 = Slice(h, a, k) l = Concat <axis = 0> (h0, three) "
        "e = ConstantOfShape(l) s = Slice(x, a, three, k) t = Add(s, bias) y = Add(e, t)",
        "float two = {2}, int64 itwo = {2}, int64[1] three = {3}, int64[1] a = {0}, "
        "int64[1] k = {1}, float[3] bias = {1, 2, 3}",
    ),
    "a branch": (
        "m = ReduceMax <keepdims = 0> (x) c = Greater(m, zero) s = Slice(x, a, b, k) "
        "y = If (c) <then_branch = t () => (float[N, 3] p) { p = Mul(s, s) }, "
        "else_branch = e () => (float[N, 3] q) { q = Neg(s) }>",
        "float zero = {0}, int64[1] a = {0}, int64[1] b = {3}, int64[1] k = {1}",
    ),
    "an input as it is": ("y = Slice(x, a, b, k)",
                          "int64[1] a = {0}, int64[1] b = {3}, int64[1] k = {1}"),
}  # fmt: skip


def outputs(model: ir.Model, dtype: Any = np.float32) -> Any:
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float16)
    return open_session(model).run({"x": x.astype(dtype)})["y"]


@pytest.mark.parametrize("case", MODELS)
def test_half_precision_gives_nearly_the_same(case: str) -> None:
    model = parsed(*MODELS[case])
    expected = outputs(model)
    assert convert_floats(model, HALF) > 0
    ir.verify(model)
    got = outputs(model)
    assert got.dtype == np.float32
    # a handful of operations on numbers of order 1, each rounded to 2^-11 of its result
    np.testing.assert_allclose(got, expected, rtol=5e-3, atol=5e-3)
    retype_ends(model, HALF)
    ir.verify(model)
    assert [(v.name, v.dtype) for v in model.graph.inputs] == [("x", HALF)]
    assert [(v.name, v.dtype) for v in model.graph.outputs] == [("y", HALF)]
    half = outputs(model, np.float16)
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, got.astype(np.float16))


@pytest.mark.parametrize("case", MODELS)
def test_back_to_single_precision(case: str) -> None:
    model = parsed(*MODELS[case])
    expected = outputs(model)
    convert_floats(model, HALF)
    retype_ends(model, HALF)
    convert_floats(model, SINGLE)
    retype_ends(model, SINGLE)
    ir.verify(model)
    assert {v.dtype for v in (*model.graph.inputs, *model.graph.outputs)} == {SINGLE}
    assert not any(v.dtype == HALF for v in model.graph.initializers.values())
    np.testing.assert_allclose(outputs(model), expected, rtol=5e-3, atol=5e-3)


def test_the_compute_is_in_half() -> None:
    model = parsed(*MODELS["matmul"])
    convert_floats(model, HALF)
    retype_ends(model, HALF)
    assert [n.op_type for n in model.graph] == ["MatMul", "Softmax"]
    assert model.graph.initializers["w"].dtype == HALF


def test_numbers_at_the_edges() -> None:
    sizes = "int64[1] a = {0}, int64[1] b = {3}, int64[1] k = {1}"
    weights = "float[1, 3] w = {-3.4e38, 1e-12, -1e-12}"
    model = parsed("s = Slice(x, a, b, k) y = Add(s, w)", f"{weights}, {sizes}")
    convert_floats(model, HALF)
    held = np.asarray(ir.array(model.graph.initializers["w"]))
    tiny = np.finfo(np.float16).smallest_subnormal
    np.testing.assert_array_equal(held, np.array([[-65504, tiny, -tiny]], np.float16))


def test_infinity_and_nan_stay() -> None:
    from onnxslim.ir.floats import _converted  # pyright: ignore[reportPrivateUsage]

    given = np.array([np.inf, -np.inf, np.nan, 0, 1], np.float32)
    np.testing.assert_array_equal(_converted(given, HALF), given.astype(np.float16))


def test_a_model_of_integers_is_left_alone() -> None:
    model = parsed("y = Add(x, x)", ends="(int64[N] x) => (int64[N] y)")
    before = ir.checksum(model)
    assert convert_floats(model, HALF) == 0
    assert ir.checksum(model) == before


def test_sequences_are_refused() -> None:
    model = parsed("q = SequenceConstruct(x) y = ConcatFromSequence <axis = 0> (q)")
    with pytest.raises(ConfigError, match=r"SequenceConstruct.* works with sequences or optional"):
        convert_floats(model, HALF)


FUNCTION = """
<ir_version: 8, opset_import: ["" : 17, "my" : 1]>
g (float[N, 4] x) => (float[N, 4] y) { h = my.Twice(x) y = my.Twice(h) }
<domain: "my", opset_import: ["" : 17]>
Twice (a) => (o) { o = Add(a, a) }
"""


def test_what_only_functions_compute_is_left_as_it_is() -> None:
    model = ir.parse_text(FUNCTION)
    before = fingerprint(model)
    assert convert_floats(model, HALF) == 0
    assert fingerprint(model) == before


def test_the_pass_puts_functions_in_place_first() -> None:
    done = onnxslim.compress(ir.parse_text(FUNCTION), passes="cast").model
    assert [node.op_type for node in done.graph] == ["Cast", "Add", "Add", "Cast"]


def test_constants_beyond_half_precision_are_told() -> None:
    model = ir.parse_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y)'
        " <float[2] a = {1e6, 1.0}, float[2] b = {2.0, 3.0}> { s = Add(x, a) y = Mul(s, b) }"
    )
    report = onnxslim.compress(model, passes="cast").report
    notes = [note for entry in report.passes for note in entry.notes]
    assert any("constants (1) hold numbers up to 1e+06; float16 ends at 65504" in n for n in notes)
    back = onnxslim.compress(model, passes="cast{to=float32}").report
    assert not any("65504" in note for entry in back.passes for note in entry.notes)
