"""Activations and normalizations written out become their operator; what only looks so stays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, Model
from onnxslim.passes.simplify.fuse import RULES
from onnxslim.targets import get_target
from tests.fusing import BY_NAME, fuse, largest_error, reasons
from tests.quantizing import build


def number(value: float) -> Array:
    return np.array(value, np.float32)


NUMBERS = {
    "half": number(0.5),
    "two": number(2),
    "cube": number(3),
    "root2": number(np.sqrt(2)),
    "rroot2": number(np.sqrt(0.5)),
    "small": number(0.044715),
    "factor": number(np.sqrt(2 / np.pi)),
    "sixth": number(1 / 6),
    "eps": number(1e-5),
    "last": np.array([-1]),
    "first": np.array([1]),
    "mhalf": number(-0.5),
    "scale": np.linspace(0.5, 2, 8, dtype=np.float32),
    "bias": np.linspace(-1, 1, 8, dtype=np.float32),
}
ERF = "a = Div(x, root2) b = Erf(a) c = Add(b, one)"
TANH = "a = Pow(x, cube) b = Mul(small, a) b0 = Add(x, b) b1 = Mul(b0, factor) b2 = Tanh(b1)"
RELU6 = "a = Add(x, three0) b = Clip(a, zero, six)"
MEAN = "m = ReduceMean <axes = [-1]> (x) d = Sub(x, m)"
VARIANCE = "p = Mul(d, d) v = ReduceMean <axes = [-1]> (p) e = Add(v, eps)"
SQUARES = "p = Pow(x, two) v = ReduceMean (p, last) e = Add(v, eps)"
SOFTMAX = "m = ReduceMax <axes = [-1]> (x) a = Sub(x, m) e = Exp(a)"


@dataclass(frozen=True)
class Case:
    """The nodes from x [N, 4, 8] to y, the rule, what it leaves, and the error allowed in eps."""

    rule: str
    nodes: str
    left: tuple[str, ...]
    opset: int
    limit: float = 16.0  # a few roundings, and those of Erf, Tanh, Exp in other polynomials
    shape: str = "N,4,8"
    weights: dict[str, Array] = field(default_factory=dict[str, Array])

    def model(self, opset: int | None = None) -> Model:
        body = f"net (float[N,4,8] x) => (float[{self.shape}] y) {{ {self.nodes} }}"
        weights = {**NUMBERS, "three0": number(3), **self.weights}
        return build(body, weights, opset or self.opset)


CASES = [
    Case("erf-gelu", f"{ERF} d = Mul(x, c) y = Mul(d, half)", ("Gelu",), 20),
    Case("erf-gelu", f"{ERF} d = Mul(half, x) y = Mul(c, d)", ("Gelu",), 20),
    Case("erf-gelu", f"{ERF} d = Mul(c, half) y = Mul(d, x)", ("Gelu",), 20),
    Case("erf-gelu", f"{ERF} d = Mul(x, c) y = Div(d, two)", ("Gelu",), 20),
    Case(
        "erf-gelu",
        "a = Mul(rroot2, x) b = Erf(a) c = Add(one, b) d = Mul(x, c) y = Mul(d, half)",
        ("Gelu",),
        20,
    ),
    Case("tanh-gelu", f"{TANH} c = Add(b2, one) d = Mul(x, c) y = Mul(d, half)", ("Gelu",), 20),
    Case(
        "tanh-gelu",
        "a = Mul(small, x) b = Mul(x, a) b0 = Mul(x, b) b1 = Add(x, b0) b2 = Mul(factor, b1) "
        "b3 = Tanh(b2) c = Add(one, b3) d = Mul(half, c) y = Mul(x, d)",
        ("Gelu",),
        20,
    ),
    Case("hard-swish", f"{RELU6} c = Mul(x, b) y = Div(c, six)", ("HardSwish",), 14),
    Case("hard-swish", f"{RELU6} c = Mul(b, x) y = Mul(c, sixth)", ("HardSwish",), 14),
    Case("hard-swish", f"{RELU6} c = Div(b, six) y = Mul(x, c)", ("HardSwish",), 14),
    Case("old-hard-swish", f"{RELU6} c = Mul(x, b) y = Div(c, six)", ("HardSigmoid", "Mul"), 13),
    Case(
        "old-hard-swish",
        "a = Add(x, three0) b = Clip <min = 0.0, max = 6.0> (a) c = Mul(x, b) y = Div(c, six)",
        ("HardSigmoid", "Mul"),
        10,
    ),
    Case("hard-sigmoid", f"{RELU6} y = Div(b, six)", ("HardSigmoid",), 13),
    Case(
        "hard-sigmoid-mul",
        "a = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul(x, a)",
        ("HardSwish",),
        14,
    ),
    Case("mish", "a = Softplus(x) b = Tanh(a) y = Mul(x, b)", ("Mish",), 18),
    Case("swish", "a = Sigmoid(x) y = Mul(a, x)", ("Swish",), 24),
    Case("softmax", f"{SOFTMAX} s = ReduceSum(e, last) y = Div(e, s)", ("Softmax",), 13),
    Case(
        "softmax",
        f"{SOFTMAX} s = ReduceSum <axes = [-1]> (e) y = Div(e, s)",
        ("Softmax",),
        11,
    ),
    Case(
        "layer-norm",
        f"{MEAN} {VARIANCE} r = Sqrt(e) n = Div(d, r) g = Mul(n, scale) y = Add(g, bias)",
        ("LayerNormalization",),
        17,
    ),
    Case(
        "layer-norm",
        f"{MEAN} {VARIANCE} r = Pow(e, mhalf) n = Mul(d, r) g = Mul(scale, n) y = Add(bias, g)",
        ("LayerNormalization",),
        17,
    ),
    Case(
        "layer-norm-no-bias",
        f"{MEAN} {VARIANCE} r = Sqrt(e) n = Div(d, r) y = Mul(n, scale)",
        ("LayerNormalization",),
        17,
    ),
    Case(
        "rms-norm",
        f"{SQUARES} r = Sqrt(e) n = Div(x, r) y = Mul(scale, n)",
        ("RMSNormalization",),
        23,
    ),
    Case(
        "rms-norm",
        f"{SQUARES} r = Sqrt(e) i = Reciprocal(r) n = Mul(x, i) y = Mul(n, scale)",
        ("RMSNormalization",),
        23,
    ),
    Case(
        "reduce-l2",
        "p = Mul(x, x) s = ReduceSum(p, last) y = Sqrt(s)",
        ("ReduceL2",),
        17,
        shape="N,4,1",
    ),
    Case(
        "reduce-sum-square",
        "p = Mul(x, x) y = ReduceSum(p, first)",
        ("ReduceSumSquare",),
        18,
        shape="N,1,8",
    ),
]


def _id(case: Case) -> str:
    return f"{case.rule} {CASES.index(case)}"


@pytest.mark.parametrize("case", CASES, ids=_id)
def test_a_pattern_becomes_its_operator(case: Case) -> None:
    model = case.model()
    before = ir.snapshot(model)
    assert fuse(model, case.rule).applied == {case.rule: 1}
    assert [ir.op(node) for node in model.graph] == list(case.left)
    assert str(model.graph.outputs[0].name) == "y"
    assert largest_error(before, model) < case.limit


@pytest.mark.parametrize("case", CASES, ids=_id)
def test_a_second_run_changes_nothing(case: Case) -> None:
    model = case.model()
    fuse(model)
    assert fuse(model).count == 0


@pytest.mark.parametrize("case", [c for c in CASES if len(c.nodes.split("=")) > 3], ids=_id)
def test_what_is_read_elsewhere_stays(case: Case) -> None:
    model = case.model()
    nodes = list(model.graph)
    inner = nodes[-2].outputs[0]
    inner.shape, inner.dtype = None, ir.DataType.FLOAT
    model.graph.outputs.append(inner)
    outcome = fuse(model, case.rule)
    assert outcome.count == 0
    assert "computed inside, is a graph output" in reasons(outcome)


@pytest.mark.parametrize(
    ("rule", "opset"),
    [("erf-gelu", 17), ("tanh-gelu", 17), ("hard-swish", 13), ("mish", 17), ("layer-norm", 16)],
)
def test_an_operator_that_the_opset_lacks_is_not_emitted(rule: str, opset: int) -> None:
    case = next(c for c in CASES if c.rule == rule)
    model = case.model(opset)
    outcome = fuse(model, rule)
    assert outcome.count == 0
    assert f"the model has {opset}" in reasons(outcome)


WRONG = [
    ("erf-gelu", 20, f"{ERF} d = Mul(x, c) y = Mul(d, sixth)", "is 0.166667, not 0.5"),
    ("erf-gelu", 20, ERF.replace("root2", "two") + " d = Mul(x, c) y = Mul(d, half)",
     "not 1.41421"),
    ("hard-swish", 14, "a = Add(x, two) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)",
     "is 2, not 3"),
    ("hard-swish", 14, "a = Add(x, three0) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, two)",
     "is 2, not 6"),
    ("hard-sigmoid-mul", 14, "a = HardSigmoid(x) y = Mul(x, a)", "alpha 0.2"),
    ("softmax", 13, "m = ReduceMax <axes = [1]> (x) a = Sub(x, m) e = Exp(a) "
     "s = ReduceSum(e, last) y = Div(e, s)", "one and the same axis"),
    ("softmax", 13, "m = ReduceMax <axes = [1]> (x) a = Sub(x, m) e = Exp(a) "
     "s = ReduceSum(e, first) y = Div(e, s)", "not over the last axis"),
    ("layer-norm", 17, f"m = ReduceMean <axes = [1]> (x) d = Sub(x, m) {VARIANCE} r = Sqrt(e) "
     "n = Div(d, r) g = Mul(n, scale) y = Add(g, bias)", "over the last axes"),
    ("layer-norm", 17, f"{MEAN} {VARIANCE} r = Sqrt(e) n = Div(d, r) g = Mul(n, one) "
     "y = Add(g, bias)", "its scale has not the shape"),
    ("layer-norm-no-bias", 17, f"{MEAN} {VARIANCE} r = Sqrt(e) n = Div(d, r) "
     "g = Mul(n, scale) y = Add(g, bias)", "its bias"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "opset", "nodes", "reason"), WRONG)
def test_what_only_looks_like_it_stays(rule: str, opset: int, nodes: str, reason: str) -> None:
    model = Case(rule, nodes, (), opset).model()
    outcome = fuse(model, rule)
    assert outcome.count == 0
    assert reason in reasons(outcome)


def test_two_different_values_are_not_one() -> None:
    model = build(
        "net (float[N,4] x, float[N,4] z) => (float[N,4] y) { a = Softplus(z) b = Tanh(a) "
        "y = Mul(x, b) }",
        {},
        18,
    )
    assert fuse(model, "mish").count == 0


def test_a_number_that_adds_an_axis_is_left() -> None:
    model = build(
        "net (float[8] x) => (float[1,8] y) { a = Add(x, c3) b = Clip(a, zero, six) "
        "c = Mul(x, b) y = Div(c, six) }",
        {"c3": np.full((1, 1), 3, np.float32)},
        14,
    )
    outcome = fuse(model, "hard-swish")
    assert outcome.count == 0
    assert "may change the shape" in reasons(outcome)


def test_double_is_left_as_it_is() -> None:
    model = build(
        "net (double[N,8] x) => (double[N,8] y) { a = Softplus(x) b = Tanh(a) y = Mul(x, b) }",
        {},
        18,
    )
    outcome = fuse(model, "mish")
    assert outcome.count == 0
    assert "its type is DOUBLE" in reasons(outcome)


def test_a_pattern_across_a_subgraph_stays() -> None:
    model = ir.parse_text("""
    <ir_version: 8, opset_import: ["" : 18]>
    net (bool c, float[4] x) => (float[4] y) {
      a = Softplus(x)
      b = Tanh(a)
      y = If (c) <
        then_branch = t () => (float[4] p) { p = Mul(x, b) },
        else_branch = e () => (float[4] q) { q = Abs(x) }
      >
    }
    """)
    outcome = fuse(model, "mish")
    assert outcome.count == 0
    assert "is in another graph" in reasons(outcome)


def test_the_target_has_only_operators_that_rules_make() -> None:
    fused = get_target("ort-cpu").fused
    assert fused <= {rule.makes for rule in RULES}
    assert "Swish" not in fused  # measured: 1.7 times as slow as Sigmoid and Mul
    assert BY_NAME["swish"].makes == "Swish"


def test_names_of_rules_differ() -> None:
    assert len(BY_NAME) == len(RULES)
