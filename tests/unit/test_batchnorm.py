"""BatchNormalization and constant arithmetic folded into layers: equal outputs, and refusals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Editor, Model
from onnxslim.passes.fold.affine import normal_of
from onnxslim.passes.fold.batchnorm import ARITHMETIC, BATCHNORM, fuse_batchnorm
from onnxslim.rewrite import Outcome, apply
from tests.quantizing import build, feeds, operators, outputs

BN = "BatchNormalization <epsilon = 0.001>"
VECTORS: dict[str, Sequence[int]] = {"g": (8,), "b": (8,), "m": (8,), "var": (8,)}

LAYERS = {
    "conv": ("Conv (x, w)", (8, 3, 3, 3), "float[N,3,6,6] x", "float[N,8,4,4] y"),
    "conv with a bias": ("Conv (x, w, c)", (8, 3, 3, 3), "float[N,3,6,6] x", "float[N,8,4,4] y"),
    "1-d conv": ("Conv (x, w)", (8, 3, 3), "float[N,3,6] x", "float[N,8,4] y"),
    "grouped conv": (
        "Conv <group = 2> (x, w)", (8, 2, 3, 3), "float[N,4,6,6] x", "float[N,8,4,4] y"
    ),
    "transposed conv": (
        "ConvTranspose <strides = [2, 2]> (x, w)", (3, 8, 2, 2),
        "float[N,3,6,6] x", "float[N,8,12,12] y",
    ),
    "grouped transposed conv": (
        "ConvTranspose <group = 2> (x, w, c)", (6, 4, 2, 2),
        "float[N,6,6,6] x", "float[N,8,7,7] y",
    ),
    "gemm": ("Gemm (x, w, c)", (5, 8), "float[N,5] x", "float[N,8] y"),
    "gemm with factors": (
        "Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, w, c)", (8, 5),
        "float[N,5] x", "float[N,8] y",
    ),
}  # fmt: skip


def _layer(name: str, then: str, more: dict[str, Sequence[int]] | None = None) -> Model:
    layer, shape, x, y = LAYERS[name]
    return build(
        f"net ({x}) => ({y}) {{ a = {layer} {then} }}",
        {"w": shape, "c": (8,), **VECTORS, **(more or {})},
    )


def fuse_affine(editor: Editor) -> Outcome:
    """As `simplify` and `quant` do, among their other rules."""
    outcome = apply(editor, [BATCHNORM, ARITHMETIC])
    editor.remove_dead()
    return outcome


def _same_outputs(before: Model, after: Model) -> None:
    for feed in feeds(before, 3):
        for one, two in zip(outputs(before, feed), outputs(after, feed), strict=True):
            # float32 rounding of the weights and of sums of at most 36 products of order one
            assert two == pytest.approx(one, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_batchnorm_goes_into_the_layer_before_it(name: str) -> None:
    model = _layer(name, f"y = {BN} (a, g, b, m, var)")
    before = ir.snapshot(model)
    count, declined = fuse_batchnorm(Editor(model))
    ir.verify(model)
    assert (count, declined) == (1, [])
    assert operators(model)["BatchNormalization"] == 0
    assert len(list(model.graph)) == 1
    _same_outputs(before, model)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("arithmetic", ["Mul (a, v)", "Add (v, a)", "Sub (v, a)", "Div (a, v)"])
def test_arithmetic_by_channel_goes_into_the_layer_before_it(name: str, arithmetic: str) -> None:
    rank = len(LAYERS[name][1])
    shape = (8,) if "gemm" in name else (1, 8, *[1] * (rank - 2))
    model = _layer(name, f"b0 = {arithmetic} y = Mul(b0, three)", {"v": shape})
    before = ir.snapshot(model)
    assert fuse_affine(Editor(model)).applied == {"affine": 2}
    ir.verify(model)
    assert len(list(model.graph)) == 1
    _same_outputs(before, model)


def test_the_statistics_are_kept_for_data_free_ranges() -> None:
    model = _layer("conv", f"n = {BN} (a, g, b, m, var) y = Mul(n, three)")
    gamma, beta = (ir.array(model.graph.initializers[k]) for k in ("g", "b"))
    fuse_affine(Editor(model))
    normal = normal_of(model.graph.outputs[0])
    assert gamma is not None
    assert beta is not None
    assert normal is not None
    assert normal.mean == pytest.approx(3 * beta)
    assert normal.deviation == pytest.approx(3 * np.abs(gamma))


def test_names_of_the_layer_and_of_the_output_stay() -> None:
    model = _layer("conv", f"y = {BN} (a, g, b, m, var)")
    (conv, _) = model.graph
    conv.name = "stem"
    fuse_batchnorm(Editor(model))
    assert [(node.name, node.outputs[0].name) for node in model.graph] == [("stem", "y")]


def test_a_weight_that_another_layer_reads_too_stays_as_it_is() -> None:
    model = build(
        "net (float[N,3,6,6] x) => (float[N,8,4,4] y, float[N,8,4,4] z)"
        f" {{ a = Conv(x, w) y = {BN} (a, g, b, m, var) z = Conv(x, w) }}",
        {"w": (8, 3, 3, 3), **VECTORS},
    )
    before = ir.snapshot(model)
    assert fuse_batchnorm(Editor(model))[0] == 1
    ir.verify(model)
    _same_outputs(before, model)


@pytest.mark.parametrize("source", ["Identity(w)", "Identity(i)"])
def test_weights_behind_identity_are_seen(source: str) -> None:
    nodes = "i = Identity(w) j = Identity(i)" if source.endswith("(i)") else "j = Identity(w)"
    model = build(
        f"net (float[N,3,6,6] x) => (float[N,8,4,4] y)"
        f" {{ {nodes} a = Conv(x, j) y = {BN} (a, g, b, m, var) }}",
        {"w": (8, 3, 3, 3), **VECTORS},
    )
    before = ir.snapshot(model)
    assert fuse_batchnorm(Editor(model))[0] == 1
    ir.verify(model)
    assert operators(model) == {"Conv": 1}
    _same_outputs(before, model)


def test_layers_of_subgraphs_are_folded() -> None:
    model = build(
        "net (float[N,3,6,6] x, float[1] s) => (float[N,8,4,4] y) {"
        " t = ReduceSum <keepdims = 0> (s) c = Greater(t, zero) y = If (c) <"
        f" then_branch = t () => (float[N,8,4,4] p) {{ a = Conv(x, w) p = {BN} (a, g, b, m, var) }}"
        ", else_branch = e () => (float[N,8,4,4] q) { q = Conv(x, w) } > }",
        {"w": (8, 3, 3, 3), **VECTORS},
    )
    before = ir.snapshot(model)
    assert fuse_batchnorm(Editor(model))[0] == 1
    ir.verify(model)
    _same_outputs(before, model)


REFUSED = {
    "read elsewhere": (
        f"net (float[N,3,6,6] x) => (float[N,8,4,4] y, float[N,8,4,4] r)"
        f" {{ a = Conv(x, w) y = {BN} (a, g, b, m, var) r = Relu(a) }}",
        "is read elsewhere too",
    ),
    "graph output": (
        f"net (float[N,3,6,6] x) => (float[N,8,4,4] y, float[N,8,4,4] a)"
        f" {{ a = Conv(x, w) y = {BN} (a, g, b, m, var) }}",
        "is read elsewhere too",
    ),
    "no layer": (
        f"net (float[N,8,6,6] x) => (float[N,8,6,6] y) {{ y = {BN} (x, g, b, m, var) }}",
        "no Conv, ConvTranspose or Gemm before it",
    ),
    "computed weight": (
        f"net (float[N,3,6,6] x, float[8,3,3,3] k) => (float[N,8,4,4] y)"
        f" {{ a = Conv(x, k) y = {BN} (a, g, b, m, var) }}",
        "is computed, not a constant",
    ),
    "computed statistics": (
        f"net (float[N,3,6,6] x, float[8] k) => (float[N,8,4,4] y)"
        f" {{ a = Conv(x, w) y = {BN} (a, k, b, m, var) }}",
        "its scale, bias, mean or variance is computed",
    ),
    "training": (
        "net (float[N,3,6,6] x) => (float[N,8,4,4] y) { a = Conv(x, w)"
        " y, rm, rv = BatchNormalization <training_mode = 1> (a, g, b, m, var) }",
        "it is in training mode",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_folded_is_declined_with_the_reason(case: str) -> None:
    body, reason = REFUSED[case]
    model = build(body, {"w": (8, 3, 3, 3), **VECTORS})
    text = ir.to_text(model)
    count, declined = fuse_batchnorm(Editor(model))
    assert count == 0
    assert [reason in found.reason for found in declined] == [True], declined
    assert ir.to_text(model) == text


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ("y = Mul(a, v)", "does not go by channel"),
        ("y = Mul(a, a)", "neither or both"),
        ("y = Div(three, a)", "it divides by its input"),
    ],
)
def test_arithmetic_that_is_no_map_by_channel_is_left_alone(then: str, reason: str) -> None:
    model = _layer("conv", then, {"v": (1, 1, 4, 4)})
    outcome = fuse_affine(Editor(model))
    assert outcome.count == 0
    assert [reason in miss.reason for miss in outcome.near_misses] == [True], outcome
