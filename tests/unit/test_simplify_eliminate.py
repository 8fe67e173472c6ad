"""Nodes that change nothing go, at all sizes bit-equal; what only looks so stays, with a reason."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from onnxslim import ir
from onnxslim.passes.simplify.eliminate import RULES
from tests.eliminating import eliminate, largest_difference, model_of, operators, reasons


@dataclass(frozen=True)
class Case:
    """The nodes from x to z (then Neg), the rule and the operators that it leaves before Neg."""

    rule: str
    nodes: str
    left: str = ""
    x: str = "float[N,4,6] x"
    weights: str = ""
    opset: int = 17

    def model(self) -> ir.Model:
        kind = "float" if self.x.startswith("float") else self.x[: self.x.index("[")]
        weights = f"<{self.weights}>" if self.weights else ""
        text = f"net ({self.x}) => ({kind}[] y) {weights} {{ {self.nodes} y = {NEXT[kind]} (z) }}"
        model = model_of(text, self.opset)
        model.graph.outputs[0].shape = None
        return model


NEXT = {"float": "Neg", "int64": "Neg", "bool": "Not", "int32": "Neg"}

NO_OPS = [
    Case("no-op-cast", "z = Cast <to = 1> (x)"),
    Case("no-op-cast", "z = CastLike (x, x)"),
    Case("no-op-transpose", "z = Transpose <perm = [0, 1, 2]> (x)"),
    Case("no-op-transpose", "z = Transpose (x)", x="float[N] x"),
    Case("no-op-expand", "z = Expand (x, s)", weights="int64[1] s = {1}"),
    Case("no-op-expand", "s = Shape (x) z = Expand (x, s)"),
    Case("no-op-tile", "z = Tile (x, r)", weights="int64[3] r = {1, 1, 1}"),
    Case(
        "no-op-slice",
        "z = Slice (x, s, e, a)",
        weights="int64[2] s = {0, 0}, int64[2] e = {4, 9}, int64[2] a = {1, 2}",
    ),
    Case(
        "no-op-slice",
        "z = Slice (x, s, e, a)",
        weights="int64[1] s = {0}, int64[1] e = {9223372036854775807}, int64[1] a = {0}",
    ),
    Case("no-op-slice", "z = Slice <starts = [0], ends = [4], axes = [1]> (x)", opset=9),
    Case("no-op-pad", "z = Pad (x, p)", weights="int64[6] p = {0, 0, 0, 0, 0, 0}"),
    Case("no-op-pad", "z = Pad <pads = [0, 0, 0, 0, 0, 0]> (x)", opset=10),
    Case("no-op-of-one", "z = Concat <axis = 1> (x)"),
    Case("no-op-of-one", "z = Sum (x)"),
    Case("no-op-split", "z = Split <axis = 1> (x)", opset=11),
    Case("no-op-resize", "z = Resize (x, , s)", weights="float[3] s = {1, 1, 1}"),
    Case(
        "no-op-pool",
        "z = MaxPool <kernel_shape = [1, 1], strides = [1, 1]> (x)",
        x="float[N,2,3,3] x",
    ),
    Case("no-op-reduce", "z = ReduceMean <axes = [1]> (x)", x="float[N,1,6] x"),
    Case("no-op-reduce", "z = ReduceSum (x, a)", x="float[N,1,6] x", weights="int64[1] a = {1}"),
    Case("neutral-element", "z = Mul (x, c)", weights="float c = {1}"),
    Case("neutral-element", "z = Mul (c, x)", weights="float[4,1] c = {1, 1, 1, 1}"),
    Case("neutral-element", "z = Div (x, c)", weights="float[1] c = {1}"),
    Case("neutral-element", "z = Sub (x, c)", weights="float[6] c = {0, 0, 0, 0, 0, 0}"),
    Case("neutral-element", "z = Pow (x, c)", weights="float c = {1}"),
    Case("neutral-element", "z = And (x, c)", x="bool[N,2] x", weights="bool c = {1}"),
    Case("neutral-element", "z = Or (c, x)", x="bool[N,2] x", weights="bool c = {0}"),
    Case("add-zero", "z = Add (c, x)", weights="float[6] c = {0, 0, 0, 0, 0, 0}"),
    Case(
        "constant-where",
        "z = Where (c, x, d)",
        weights="bool[6] c = {1, 1, 1, 1, 1, 1}, float d = {5}",
    ),
]

VIEWS = [
    Case("merge-views", "a = Flatten (x) z = Reshape (a, s)", "Reshape",
         weights="int64[3] s = {-1, 8, 3}"),
    Case("merge-views", "a = Flatten (x) z = Reshape (a, s)",
         weights="int64[3] s = {-1, 4, 6}"),
    Case("merge-views", "a = Unsqueeze (x, s) z = Squeeze (a, s)", "", weights="int64[1] s = {1}"),
    Case("merge-views", "a = Unsqueeze <axes = [0]> (x) z = Squeeze <axes = [0]> (a)", "",
         opset=11),
    Case("merge-views", "a = Unsqueeze (x, s) z = Unsqueeze (a, s)", "Reshape",
         weights="int64[1] s = {1}"),
    Case("merge-views", "a = Transpose <perm = [1, 0, 2]> (x) z = Transpose <perm = [1, 2, 0]> (a)",
         "Transpose"),
    Case("merge-views",
         "a = Transpose <perm = [0, 2, 1]> (x) z = Transpose <perm = [0, 2, 1]> (a)"),
    Case("merge-views",
         "a = Unsqueeze (x, o) b = Transpose <perm = [3, 1, 2, 0]> (a) z = Squeeze (b, e)",
         "Transpose", weights="int64[1] o = {0}, int64[1] e = {3}"),
    Case("merge-views",
         "a = Reshape (x, s) b = Transpose <perm = [1, 0, 2]> (a) z = Reshape (b, t)",
         "Reshape Transpose", x="float[5,N,8] x",
         weights="int64[3] s = {5, -1, 2}, int64[4] t = {-1, 4, 5, 2}"),
    Case("merge-views", "g = Gather <axis = 1> (x, i) z = Reshape (g, s)", "Reshape",
         x="float[N,1,6] x", weights="int64 i = {-1}, int64[3] s = {-1, 2, 3}"),
    Case("merge-views", "g = Gather <axis = 1> (x, i) z = Unsqueeze (g, a)", "",
         x="float[N,1,6] x", weights="int64 i = {0}, int64[1] a = {1}"),
    Case("reshape-to-constant",
         "s = Shape <end = 1> (x) t = Concat <axis = 0> (s, c) z = Reshape (x, t)", "Reshape",
         weights="int64[2] c = {8, 3}"),
    Case("reshape-to-constant",
         "s = Shape <end = 2> (x) t = Concat <axis = 0> (s, c) z = Reshape (x, t)", "Reshape",
         x="float[N,M,6] x", weights="int64[2] c = {2, 3}"),
    Case("merge-transposes",
         "a = Transpose <perm = [1, 0, 2]> (x) z = Transpose <perm = [1, 0, 2]> (a)", "",
         x="float[] x"),
]  # fmt: skip

EVERY_SECOND = (
    "int64[1] s = {0}, int64[1] d = {1}, int64[1] e = {99}, int64[1] o = {1}, int64[1] t = {2}"
)

PARTS = [
    Case("slice-of-slice", "a = Slice (x, s, e, o) z = Slice (a, s, e, t)", "Slice",
         weights="int64[1] s = {1}, int64[1] e = {3}, int64[1] o = {1}, int64[1] t = {2}"),
    Case("slice-of-slice", "a = Slice (x, s, e, o, t) z = Slice (a, s, e, o)", "Slice",
         weights="int64[1] s = {1}, int64[1] e = {6}, int64[1] o = {2}, int64[1] t = {2}"),
    Case("concat-of-parts",
         "a = Slice (x, m, e, o) b = Slice (x, s, m, o) z = Concat <axis = 1> (a, b)", "Gather",
         x="float[N,4,16] x",
         weights="int64[1] s = {0}, int64[1] m = {-1}, int64[1] e = {99}, int64[1] o = {1}"),
    Case("concat-of-parts",
         "a = Slice (x, s, m, o) b = Slice (x, m, e, o) z = Concat <axis = 1> (a, b)", "",
         weights="int64[1] s = {0}, int64[1] m = {1}, int64[1] e = {99}, int64[1] o = {1}"),
    Case("concat-of-parts", "a, b = Split <axis = -1> (x, p) z = Concat <axis = 2> (a, b)", "",
         weights="int64[2] p = {2, 4}"),
    Case("concat-of-parts", "a, b = Split <axis = 1> (x, p) z = Concat <axis = 1> (b, a)",
         "Gather", x="float[N,6,16] x", weights="int64[2] p = {2, 4}"),
    Case("concat-of-concat",
         "a = Concat <axis = 1> (x, x) z = Concat <axis = -2> (a, x)", "Concat"),
    Case("slices-to-depth",
         "a = Slice (x, s, e, o, t) b = Slice (x, d, e, o, t) z = Concat <axis = 2> (a, b)",
         "Reshape", weights=EVERY_SECOND),
    Case("slices-to-depth",
         "a = Slice (x, s, e, o, t) b = Slice (x, d, e, o, t) c = Slice (a, s, e, p, t) "
         "f = Slice (a, d, e, p, t) g = Slice (b, s, e, p, t) h = Slice (b, d, e, p, t) "
         "z = Concat <axis = 3> (c, g, f, h)", "Reshape Transpose Reshape",
         x="float[N,4,6,3] x", weights=f"{EVERY_SECOND}, int64[1] p = {{2}}"),
    Case("expand-before-broadcast",
         "n = Shape (x) a = Expand (c, n) z = Add (a, x)", "Add",
         weights="float[6] c = {1,2,3,4,5,6}"),
    Case("shape-arithmetic",
         "q = Relu (x) n = Shape (q) i = Gather (n, k) u = Unsqueeze (i, o) "
         "t = Concat <axis = 0> (u, l) a = Expand (c, t) z = Concat <axis = 1> (a, q)",
         "Relu Shape Concat Expand Concat", weights="int64 k = {0}, int64[1] o = {0}, "
         "int64[2] l = {1, 1}, float[1,1,6] c = {1,2,3,4,5,6}"),
]  # fmt: skip

ROWS = f"float[8,5] w = {{{', '.join(map(str, range(40)))}}}, float[5] b = {{1, 2, 3, 4, 5}}"

MOVED = [
    Case("views-through-rows",
         "a = Transpose <perm = [1, 0, 2]> (x) c = MatMul (a, w) d = Add (b, c) "
         "z = Transpose <perm = [1, 2, 0]> (d)", "MatMul Add Transpose",
         x="float[N,3,8] x", weights=ROWS),
    Case("views-through-rows",
         "t = Transpose <perm = [1, 0, 2]> (x) a = Reshape (t, s) c = Gemm (a, w, b) "
         "e = Reshape (c, r) z = Transpose <perm = [1, 0, 2]> (e)", "Reshape Gemm Reshape",
         x="float[N,3,8] x",
         weights=f"{ROWS}, int64[2] s = {{-1, 8}}, int64[3] r = {{3, -1, 5}}"),
    Case("views-through-rows",
         "a = Transpose <perm = [0, 2, 1]> (x) c = Relu (a) z = Transpose <perm = [0, 2, 1]> (c)",
         "Relu"),
    Case("views-before-gathers",
         "q = Relu (x) g = Gather <axis = 1> (q, i) h = Gather <axis = 1> (q, k) "
         "u = Transpose <perm = [1, 0]> (g) v = Transpose <perm = [1, 0]> (h) z = Sub (u, v)",
         "Relu Transpose Gather Gather Sub", weights="int64 i = {0}, int64 k = {-1}",
         x="float[N,3,6] x"),
    Case("join-transposes",
         "a = Transpose <perm = [2, 0, 1]> (x) q = Abs (x) b = Transpose <perm = [2, 0, 1]> (q) "
         "z = Mul (a, b)", "Abs Mul Transpose"),
    Case("join-transposes",
         "a = Transpose <perm = [2, 0, 1]> (x) q = Abs (x) b = Transpose <perm = [2, 0, 1]> (q) "
         "z = Concat <axis = -1> (a, b)", "Abs Concat Transpose"),
    Case("pool-of-transpose",
         "t = Transpose <perm = [0, 3, 1, 2]> (x) p = GlobalMaxPool (t) z = Flatten (p)",
         "ReduceMax", x="float[N,2,4,3] x"),
    Case("pool-of-transpose",
         "t = Transpose <perm = [0, 3, 1, 2]> (x) p = GlobalAveragePool (t) z = Flatten (p)",
         "ReduceMean", x="float[N,2,4,3] x", opset=18),
    Case("merge-views",  # one Reshape, with -1 for the last size, would refuse an empty batch
         "a = Reshape (x, s) b = Unsqueeze (a, u) z = Reshape (b, t)", "Reshape Unsqueeze",
         x="float[N,3,M,M] x", weights="int64[4] s = {-1, 3, 0, 0}, int64[2] u = {1, 5}, "
         "int64[6] t = {0, 1, 3, 0, 0, 1}"),
    Case("gathers-to-split",
         "r = Reshape (x, s) t = Transpose <perm = [2, 0, 3, 1, 4]> (r) "
         "g = Gather (t, i) h = Gather (t, k) m = Neg (h) z = Sub (g, m)",
         "Reshape Transpose Split Neg Sub", x="float[N,5,24] x",
         weights="int64[5] s = {0, 5, 2, 3, 4}, int64 i = {1}, int64 k = {0}"),
    Case("split-of-ones",
         "a, b = Split <axis = -1> (x, s) f = Squeeze (a, i) g = Squeeze (b, i) z = Sub (g, f)",
         "Gather Gather Sub", x="float[N,4,2] x",
         weights="int64[2] s = {1, 1}, int64[1] i = {2}"),
]  # fmt: skip


@pytest.mark.parametrize("case", [*NO_OPS, *VIEWS, *PARTS], ids=lambda c: f"{c.rule}:{c.nodes}")
def test_what_is_removed_changes_no_bit(case: Case) -> None:
    model, before = case.model(), case.model()
    outcome = eliminate(model)
    assert outcome.applied.get(case.rule)
    assert operators(model) == [*case.left.split(), NEXT[case.x[: case.x.index("[")]]]
    assert largest_difference(before, model, (1, 2, 5)) == 0


def test_all_rules_have_names_and_cases() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert set(names) == {case.rule for case in (*NO_OPS, *VIEWS, *PARTS, *MOVED)}
    assert all(" -> " in rule.summary for rule in RULES)


@pytest.mark.parametrize("case", MOVED, ids=lambda c: f"{c.rule}:{c.nodes}")
def test_what_is_moved_keeps_the_outputs(case: Case) -> None:
    """Sums of whole numbers: exact in any order."""
    model, before = case.model(), case.model()
    outcome = eliminate(model)
    assert outcome.applied.get(case.rule)
    assert operators(model) == [*case.left.split(), "Neg"]
    assert largest_difference(before, model, (1, 2, 5)) == 0


STAYS = [
    Case("no-op-cast", "z = Cast <to = 11> (x)", "Cast"),
    Case("no-op-slice", "z = Slice (x, s, e, a, t)", "Slice",
         weights="int64[1] s = {-1}, int64[1] e = {-99}, int64[1] a = {1}, int64[1] t = {-1}"),
    Case("no-op-expand", "z = Expand (x, s)", "Expand", weights="int64[4] s = {1, 1, 1, 1}"),
    Case("no-op-expand", "z = Expand (x, s)", "Expand", weights="int64[1] s = {6}",
         x="float[N,M] x"),
    Case("no-op-reduce", "z = ReduceSum <keepdims = 0> (x, a)", "ReduceSum", x="float[N,1,6] x",
         weights="int64[1] a = {1}"),
    Case("neutral-element", "z = Sub (c, x)", "Sub", weights="float c = {0}"),
    Case("neutral-element", "z = Sub (x, c)", "Sub", weights="float c = {-0.0}"),
    Case("neutral-element", "z = Mul (x, c)", "Mul", weights="float[2,1,1,1] c = {1, 1}"),
    Case("neutral-element", "z = Mul (x, c)", "Mul", weights="float[1,1,1,1] c = {1}"),
    Case("constant-where", "z = Where (c, x, d)", "Where", x="float[N] x",
         weights="bool[1] c = {1}, float[2,1] d = {5, 6}"),
    Case("merge-views", "z = Reshape (x, s)", "Reshape", x="float[0,4] x",
         weights="int64[3] s = {2, 0, 2}"),
    Case("merge-views", "a = Reshape (x, s) z = Reshape (a, t)", "Reshape Reshape",
         x="float[0,4] x", weights="int64[3] s = {2, 0, 2}, int64[1] t = {0}"),
    Case("reshape-to-constant",
         "a = Transpose <perm = [1, 0, 2]> (x) s = Shape <end = 2> (x) "
         "t = Concat <axis = 0> (s, c) z = Reshape (a, t)", "Transpose Shape Concat Reshape",
         x="float[N,M,6] x", weights="int64[2] c = {2, 3}"),
    Case("slice-of-slice", "a = Slice (x, s, e, o) z = Slice (a, s, e, o)", "Slice Slice",
         x="float[N,M] x", weights="int64[1] s = {-2}, int64[1] e = {99}, int64[1] o = {1}"),
    Case("concat-of-parts",
         "a = Slice (x, m, e, o) b = Slice (x, s, m, o) z = Concat <axis = 1> (a, b)",
         "Slice Slice Concat", x="float[N,M] x",
         weights="int64[1] s = {0}, int64[1] m = {1}, int64[1] e = {99}, int64[1] o = {1}"),
    Case("concat-of-parts",
         "a = Slice (x, m, e, o) b = Slice (x, s, m, o) z = Concat <axis = 1> (a, b)",
         "Slice Slice Concat", x="float[N,4,8] x",
         weights="int64[1] s = {0}, int64[1] m = {1}, int64[1] e = {99}, int64[1] o = {1}"),
    Case("concat-of-parts",
         "a = Slice (x, m, e, o) b = Slice (x, s, m, o) z = Concat <axis = 2> (a, b)",
         "Slice Slice Concat", x="float[N,2,6] x",
         weights="int64[1] s = {0}, int64[1] m = {1}, int64[1] e = {99}, int64[1] o = {1}"),
    Case("slices-to-depth",
         "b = Slice (x, d, e, o, t) z = Concat <axis = 2> (b, b)", "Slice Concat",
         weights=EVERY_SECOND.replace("int64[1] s = {0}, ", "")),
    Case("concat-of-concat", "a = Concat <axis = 1> (x, x) z = Concat <axis = 2> (a, a)",
         "Concat Concat"),
    Case("join-transposes",
         "a = Transpose <perm = [2, 0, 1]> (x) b = Transpose <perm = [1, 0, 2]> (x) "
         "z = Concat <axis = 0> (a, b)", "Transpose Transpose Concat", x="float[N,2,2] x"),
    Case("pool-of-transpose",
         "t = Transpose <perm = [0, 1, 3, 2]> (x) p = GlobalMaxPool (t) z = Flatten (p)",
         "Transpose GlobalMaxPool Flatten", x="float[N,2,4,3] x"),
    Case("gathers-to-split", "q = Relu (x) g = Gather <axis = 1> (q, i) "
         "h = Gather <axis = 1> (q, i) z = Sub (g, h)", "Relu Gather Gather Sub",
         x="float[N,2,6] x", weights="int64 i = {0}"),
    Case("split-of-ones",
         "q = Relu (x) a, b = Split <axis = 1> (q, s) f = Squeeze (a, i) z = Sub (f, b)",
         "Relu Split Squeeze Sub", x="float[N,2,2] x",
         weights="int64[2] s = {1, 1}, int64[1] i = {1}"),
    Case("views-through-rows",
         "a = Transpose <perm = [0, 2, 1]> (x) c = Softmax <axis = -1> (a) "
         "z = Transpose <perm = [0, 2, 1]> (c)", "Transpose Softmax Transpose"),
]  # fmt: skip


@pytest.mark.parametrize("case", STAYS, ids=lambda c: f"{c.rule}:{c.nodes}")
def test_what_only_looks_so_stays(case: Case) -> None:
    model, before = case.model(), case.model()
    outcome = eliminate(model)
    assert not outcome.count
    assert operators(model) == [*case.left.split(), NEXT[case.x[: case.x.index("[")]]]
    assert ir.to_text(model) == ir.to_text(before)


MISSES = [
    ("no-op-slice", "z = Slice (x, i, i)", "its bounds are computed", ", int64[3] i"),
    ("no-op-expand", "z = Expand (x, i)", "it may change the shape", ", int64[3] i"),
    ("neutral-element", "z = Sub (x, c)", "it subtracts -0.0", ""),
    ("reshape-to-constant", "z = Reshape (x, i)", "several sizes are unknown", ", int64[3] i"),
    ("slice-of-slice", "a = Slice (x, i, i) z = Slice (a, i, i)", "bounds are computed",
     ", int64[3] i"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "nodes", "reason", "more"), MISSES, ids=lambda v: str(v))
def test_near_misses_say_why(rule: str, nodes: str, reason: str, more: str) -> None:
    weights = "<float c = {-0.0}>"
    model = model_of(
        f"net (float[N,4,6] x{more}) => (float[A,B,C] y) {weights} {{ {nodes} y = Neg (z) }}"
    )
    outcome = eliminate(model)
    assert reason in reasons(outcome, rule)


def test_values_that_others_read_are_kept() -> None:
    """A Transpose pair: the inner one stays for its other reader, and is a graph output below."""
    text = """net (float[N,4] x) => (float[A,B] y, float[C,D] a) {
      a = Transpose <perm = [1, 0]> (x) b = Transpose <perm = [1, 0]> (a) y = Neg (b) }"""
    model, before = model_of(text), model_of(text)
    eliminate(model)
    assert operators(model) == ["Transpose", "Neg"]
    assert largest_difference(before, model, (1, 3)) == 0


def test_a_graph_output_keeps_its_name_and_an_input_its_own() -> None:
    text = """net (float[N,4] x) => (float[N,4] y, float[N,4] z) {
      a = Neg (x) y = Cast <to = 1> (a) z = Cast <to = 1> (x) }"""
    model = model_of(text)
    outcome = eliminate(model)
    assert operators(model) == ["Neg", "Cast"]
    assert [value.name for value in model.graph.outputs] == ["y", "z"]
    assert "input or constant that keeps its name" in reasons(outcome, "no-op-cast")


def test_nodes_of_subgraphs_and_what_they_capture() -> None:
    """The Unsqueeze of the outer graph is read inside only; the pair is one over both graphs."""
    text = """net (bool c, float[N,4] x) => (float[A,B] y) <int64[1] a = {0}> {
      u = Unsqueeze (x, a)
      y = If (c) <then_branch = t () => (float[A,B] p) { s = Squeeze (u, a) p = Neg (s) },
                  else_branch = f () => (float[A,B] q) { v = Cast <to = 1> (x) q = Abs (v) }>
    }"""
    model, before = model_of(text), model_of(text)
    eliminate(model)
    assert sorted(operators(model)) == ["Abs", "If", "Neg"]
    assert largest_difference(before, model, (2,)) == 0


def test_attributes_of_a_functions_caller_are_not_believed() -> None:
    text = """net (float[N,4] x) => (float[A,B] y) { y = my.f <to: int = 1> (x) }
      <domain: "my", opset_import: ["" : 17]> f <to> (x) => (y) {
        z = Cast <to: int = @to> (x) y = Neg (z) }"""
    model = ir.parse_text(f'<ir_version: 8, opset_import: ["" : 17, "my" : 1]> {text}')
    eliminate(model)
    assert "Cast" in operators(model)


def test_size_zero_at_run_time() -> None:
    """A -1 beside a copied size would fail there; each of the sizes alone does not."""
    text = """net (float[N,M,6] x) => (float[A,B,C,D] y) <int64[2] c = {2, 3}> {
      s = Shape <end = 2> (x) t = Concat <axis = 0> (s, c) z = Reshape (x, t) y = Neg (z) }"""
    model, before = model_of(text), model_of(text)
    eliminate(model)
    assert operators(model) == ["Reshape", "Neg"]
    assert largest_difference(before, model, (0, 2)) == 0
