"""Facts: the tricky rules, what is not believed, scopes, and edits."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.facts import Dim, Facts
from onnxslim.analyses.facts.dims import ceil_div, named
from onnxslim.ir import DataType, Editor, Model, Value

N, S = named("N"), named("S")


def _model(body: str, inputs: str = "float[N, 4, S] x", opset: int = 17) -> Model:
    return ir.parse_text(f"""
    <ir_version: 9, opset_import: ["" : {opset}]>
    g ({inputs}) => (float y) {{ {body} }}
    """)


def _value(model: Model, name: str) -> Value:
    return next(
        v for scope in ir.scopes(model) for node in scope for v in node.outputs if v.name == name
    )


def _shape(body: str, inputs: str = "float[N, 4, S] x", opset: int = 17) -> tuple[Dim, ...] | None:
    model = _model(body, inputs, opset)
    return Facts(model).shape(_value(model, "y"))


def _reshape(target: str, inputs: str = "float[N, 4, S] x", attributes: str = "") -> object:
    vector = "{" + target + "}"
    count = len(target.split(","))
    return _shape(
        f"t = Constant <value = int64[{count}] {vector}> () y = Reshape {attributes} (x, t)", inputs
    )


def test_reshape_copies_at_zero_and_divides_at_minus_one() -> None:
    assert _reshape("0, -1") == (N, 4 * S)
    assert _reshape("-1, 2") == (2 * N * S, 2)
    assert _reshape("0, 2, 2, -1") == (N, 2, 2, S)
    assert _reshape("6, -1", "float[2, 3, 4] x") == (6, 4)
    assert _reshape("0, 3", "float[0, 3] x", "<allowzero = 1>") == (0, 3)


def test_a_reshape_that_cannot_be_says_nothing() -> None:
    assert _reshape("5, -1", "float[2, 3] x") is None
    assert _reshape("7", "float[2, 3] x") is None
    assert _reshape("-1, -1") is None
    assert _reshape("2, 3, 0", "float[2, 3] x") is None
    assert _reshape("0, -1", "float[0, 3] x") is None


def test_reshape_to_computed_sizes() -> None:
    """Where a size may be 0, the axis at the same place must be empty then too."""
    body = """
      s = Shape (x)
      zero = Constant <value = int64[1] {0}> ()  two = Constant <value = int64[1] {2}> ()
      one = Constant <value = int64[1] {1}> ()
      n = Gather (s, zero)  l = Gather (s, two)  four = Gather (s, one)
      t = Concat <axis = 0> (%s)
      y = Reshape (x, t)
    """
    assert _shape(body % "n, l, four") == (N, S, 4)
    assert _shape(body % "n, four, l") == (N, 4, S)
    both = body.replace("t = Concat", "nl = Mul (n, l) t = Concat")
    assert _shape(both % "nl, four") == (N * S, 4)
    minus = body.replace("t = Concat", "m = Constant <value = int64[1] {-1}> () t = Concat")
    found = _shape(minus % "l, m")  # with S = 0 the 0 copies N
    assert found is not None
    assert found[0] not in (N, S)


@pytest.mark.parametrize(
    ("size", "start", "end", "step", "expected"),
    [
        ("7", 1, 9223372036854775807, 2, 3),
        ("7", -3, -1, 1, 2),
        ("7", -100, 100, 1, 7),
        ("7", 100, 0, 1, 0),
        ("7", -1, -9223372036854775808, -1, 7),
        ("7", 5, 1, -2, 2),
        ("7", -100, -200, -1, 1),
        ("0", -1, -9223372036854775808, -1, 0),
        ("N", 0, 9223372036854775807, 1, N),
        ("N", -1, -9223372036854775808, -1, N),
    ],
)
def test_slices(size: str, start: int, end: int, step: int, expected: Dim) -> None:
    body = "".join(
        f"{name} = Constant <value = int64[1] {{{value}}}> () "
        for name, value in (("b", start), ("e", end), ("a", 0), ("t", step))
    )
    assert _shape(f"{body} y = Slice (x, b, e, a, t)", f"float[{size}] x") == (expected,)


def test_a_slice_of_a_symbolic_size_may_be_shorter() -> None:
    body = "b = Constant <value = int64[1] {0}> () e = Constant <value = int64[1] {5}> () "
    found = _shape(body + "y = Slice (x, b, e)", "float[N] x")
    assert found is not None
    assert str(found[0]) == "min(5, N)"


def test_elementwise_results_are_broadcast() -> None:
    assert _shape("y = Add (x, z)", "float[N, 1] x, float[S] z") == (N, S)
    assert _shape("y = Add (x, z)", "float[N] x, float[N] z") == (N,)
    assert _shape("y = Add (x, z)", "float[N] x, float[4] z") == (4,)
    assert _shape("y = Add (x, z)", "float[3] x, float[4] z") is None
    unknown = _shape("y = Add (x, z)", "float[N] x, float[S] z")
    assert unknown is not None
    assert unknown[0] not in (N, S)


def test_convolutions_and_their_automatic_pads() -> None:
    inputs = "float[N, 3, 9, S] x, float[8, 3, 3, 3] w"
    assert _shape("y = Conv (x, w)", inputs) == (N, 8, 7, S - 2)
    assert _shape('y = Conv <auto_pad = "SAME_UPPER", strides = [2, 3]> (x, w)', inputs) == (
        (N, 8, 5, ceil_div(S, 3))
    )
    assert _shape('y = Conv <auto_pad = "VALID", strides = [2, 1]> (x, w)', inputs) == (
        (N, 8, 4, S - 2)
    )
    assert _shape("y = Conv <pads = [1, 1, 1, 1]> (x, w)", inputs) == (N, 8, 9, S)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("", (N, 4, S)),
        ("<start = 1>", (4, S)),
        ("<start = -2, end = -1>", (4,)),
        ("<start = 2, end = 1>", ()),
        ("<start = -9, end = 9>", (N, 4, S)),
    ],
)
def test_shape_knows_its_start_and_end(attributes: str, expected: tuple[Dim, ...]) -> None:
    model = _model(f"y = Shape {attributes} (x)")
    assert Facts(model).content(_value(model, "y")) == expected


def test_a_scalar_expanded_to_a_scalar_is_known() -> None:
    model = _model("""
      s = Shape (x)
      i = Constant <value = int64 {1}> ()  none = Constant <value = int64[0] {}> ()
      l = Gather (s, i)  same = Expand (l, none)  y = Identity (x)
    """)
    facts = Facts(model)
    assert facts.content(_value(model, "same")) == facts.content(_value(model, "l"))
    assert facts.content(_value(model, "same")) is not None


def test_the_contents_of_a_slice_may_be_none() -> None:
    model = _model("""
      s = Shape (x)
      a = Constant <value = int64[1] {2}> ()  b = Constant <value = int64[1] {1}> ()
      c = Constant <value = int64[1] {99}> ()
      none = Slice (s, a, b)  last = Slice (s, a, c)  y = Identity (x)
    """)
    facts = Facts(model)
    assert facts.content(_value(model, "none")) == ()
    assert facts.content(_value(model, "last")) == (S,)
    empty = facts.constant(_value(model, "none"))
    assert empty is not None
    assert empty.shape == (0,)
    assert empty.dtype == np.int64


def test_arithmetic_on_shapes_is_followed() -> None:
    model = _model("""
      s = Shape (x)
      i = Constant <value = int64 {2}> ()  k = Constant <value = int64 {3}> ()
      l = Gather (s, i)  l3 = Mul (l, k)  d = Div (l3, l)  m = Mod (l3, l)
      f = Cast <to = 6> (l)  e = Equal (l3, l)  c = Constant <value = int64 {-1}> ()
      never = Equal (l, c)  w = Where (never, c, l)
      y = Identity (x)
    """)
    facts = Facts(model)
    contents = {name: facts.content(_value(model, name)) for name in ("l3", "d", "m", "f", "w")}
    assert contents == {"l3": (3 * S,), "d": (3,), "m": (0,), "f": (S,), "w": (S,)}
    assert facts.dtype(_value(model, "f")) == DataType.INT32
    never = facts.constant(_value(model, "never"))
    assert never is not None
    assert never.dtype == np.bool_
    assert never.shape == ()
    assert not never
    assert facts.constant(_value(model, "e")) is None  # they are equal where S is 0


def test_int32_that_would_overflow_is_not_known() -> None:
    model = _model("""
      a = Constant <value = int32[1] {2147483647}> ()  b = Constant <value = int32[1] {1}> ()
      c = Add (a, b)  d = Sub (a, b)  y = Identity (x)
    """)
    facts = Facts(model)
    assert facts.constant(_value(model, "c")) is None
    assert facts.content(_value(model, "d")) == (2147483646,)


def test_what_the_model_claims_of_inner_values_is_not_believed() -> None:
    model = ir.parse_text("""
    <ir_version: 9, opset_import: ["" : 17]>
    g (float[N, 4] x) => (float[7, 7, 7] y) <float[9] t> { t = Relu(x) y = Neg(t) }
    """)
    facts = Facts(model)
    assert facts.shape(_value(model, "t")) == (N, 4)
    assert facts.shape(model.graph.outputs[0]) == (N, 4)


def test_a_question_mark_is_no_name() -> None:
    model = _model("y = Relu (x)")
    model.graph.inputs[0].shape = ir.Shape(["?", "?", "N"])
    found = Facts(model).shape(_value(model, "y"))
    assert found is not None
    assert found[0] != found[1]
    assert found[2] == N


def test_bodies_of_loops_believe_neither_themselves_nor_the_first_round() -> None:
    model = ir.parse_text("""
    <ir_version: 9, opset_import: ["" : 17]>
    g (float[N, 4] x, int64 n, bool c) => (float y) {
      y = Loop (n, c, x) <body = b (int64 i, bool k, float[N, 4] v) => (bool k2, float[N, 4] u) {
        k2 = Identity (k)  u = Concat <axis = 0> (v, x)  own = Relu (x)
      }>
    }
    """)
    facts = Facts(model)
    assert facts.shape(_value(model, "k2")) == ()
    assert facts.shape(_value(model, "own")) == (N, 4)
    assert facts.shape(_value(model, "y")) is None
    grown = facts.shape(_value(model, "u"))
    assert grown is not None
    assert grown[0] not in (N, 2 * N)


def test_an_if_gives_what_its_branches_agree_upon() -> None:
    model = ir.parse_text("""
    <ir_version: 9, opset_import: ["" : 17]>
    g (float[N, 4] x, float[3, 4] z, bool c) => (float y) {
      y = If (c) <
        then_branch = t () => (float p) { p = Relu (x) },
        else_branch = e () => (float q) { q = Neg (z) }
      >
    }
    """)
    found = Facts(model).shape(_value(model, "y"))
    assert found is not None
    assert found[0] not in (N, 3)
    assert found[1] == 4


def test_functions_have_unknown_inputs_and_their_own_opset() -> None:
    model = ir.parse_text("""
    <ir_version: 9, opset_import: ["" : 17, "own" : 1]>
    g (float[N, 4] x) => (float y) { y = own.f (x) }
    <domain: "own", opset_import: ["" : 16]>
    f (a) => (r) { s = Shape (a)  r = Relu (a) }
    """)
    facts = Facts(model)
    inner = _value(model, "r").producer()
    assert inner is not None
    assert facts.opset(inner) == 16
    assert facts.shape(_value(model, "r")) is None
    assert facts.dtype(_value(model, "s")) == DataType.INT64
    assert facts.shape(_value(model, "y")) is None


def test_new_nodes_are_learnt_when_asked_for_and_readers_follow() -> None:
    model = _model("a = Relu (x)  b = Neg (a)  y = Abs (b)")
    facts = Facts(model)
    editor = Editor(model)
    old = _value(model, "a").producer()
    assert old is not None
    made = editor.node("Transpose", [model.graph.inputs[0]], outputs=["a"],
                       attributes={"perm": [2, 1, 0]})  # fmt: skip
    editor.replace_node(old, [made], [made.outputs[0]])
    assert facts.shape(made.outputs[0]) == (S, 4, N)
    reader = _value(model, "b").producer()
    assert reader is not None
    assert facts.learn(reader)
    assert facts.shape(_value(model, "y")) == (S, 4, N)
    assert not facts.learn(made)


def test_learning_reaches_the_readers_of_what_changed() -> None:
    model = _model("a = Transpose <perm = [1, 0, 2]> (x)  b = Neg (a)  y = Abs (b)")
    facts = Facts(model)
    node = _value(model, "a").producer()
    assert node is not None
    node.attributes.add(ir.Attr("perm", ir.AttributeType.INTS, [2, 1, 0]))
    assert facts.learn(node)
    assert facts.shape(_value(model, "y")) == (S, 4, N)
    assert not facts.learn(node)


def test_a_replaced_constant_is_seen() -> None:
    model = _model("t = Constant <value = int64[2] {0, -1}> ()  y = Reshape (x, t)")
    facts = Facts(model)
    assert facts.shape(_value(model, "y")) == (N, 4 * S)
    Editor(model).replace_initializer(_value(model, "t"), np.array([-1], np.int64))
    assert facts.content(_value(model, "t")) == (-1,)


def test_unknown_operators_sequences_and_invalid_nodes_are_no_error() -> None:
    model = ir.parse_text("""
    <ir_version: 9, opset_import: ["" : 17, "other" : 1]>
    g (float[N, 4] x, float[3] z) => (float y) {
      a = other.Thing (x)  q = SequenceConstruct (x, x)  m = MatMul (x, z)
      p = Transpose <perm = [0, 0]> (x)  y = Relu (a)
    }
    """)
    facts = Facts(model)
    assert [facts.shape(_value(model, name)) for name in "aqmpy"] == [None] * 5
    assert facts.shape(None) is None
    assert facts.dtype(None) is None
