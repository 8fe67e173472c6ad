"""Channels of inputs are scaled for weights in 8 bits: exact in reals, and better when rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import onnxslim
from models.llama import Llama
from onnxslim import ir
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.prepare.canonical import canonicalize
from onnxslim.passes.quant.weight_only.equalize import balancing, equalize_inputs
from onnxslim.passes.quant.weight_only.layers import find_layers
from onnxslim.runtime.session import open_session
from tests.quantizing import build, feeds, kernels, outputs, quantize, sqnr_db
from tests.tiny_decoder import decoder

NORM = " n = LayerNormalization <axis = -1> (x, g, b)"
OUTLIERS: Array = np.where(np.arange(64) % 32 == 5, 30, 1).astype(np.float32)
"""A channel in each block is 30 times as large as the others."""

GATED = " a = MatMul(x, v) s = Sigmoid(x2) n = Mul(s, a)"


def equalized(model: Model) -> int:
    """How many layers were changed, their inputs having channels of very different sizes."""
    layers, _ = find_layers(model, 32, ())
    sizes = {layer.tap: np.geomspace(0.01, 100, layer.inputs) for layer in layers}
    changed = equalize_inputs(Editor(model), layers, sizes)
    ir.verify(model)
    return len(changed)


def test_channels_become_as_large_as_what_reads_them() -> None:
    size, weight = np.geomspace(0.1, 10, 6), np.array([3.0, 1, 4, 1, 5, 9])
    s = balancing(size, weight, np.arange(6))
    ratio = (size / s) / (weight * s)
    np.testing.assert_allclose(ratio, ratio[0])
    assert np.exp(np.log(s).mean()) == pytest.approx(1)


def test_no_other_scales_leave_less_noise() -> None:
    """Noise of a block is max(x / s)^2 sum((s w)^2), least for constant x / s over s w."""
    rng = np.random.default_rng(0)
    size, weight = np.exp(rng.normal(size=(2, 32)))

    def noise(s: Array) -> float:
        of_inputs = np.square(size / s).max() * np.square(s * weight).sum()
        of_weights = np.square(s * weight).max() * np.square(size / s).sum()
        return float(of_inputs + of_weights)

    s = balancing(size, weight, np.arange(32))
    for _ in range(200):
        assert noise(s) < noise(s * np.exp(0.2 * rng.normal(size=32)))


def test_copies_share_a_scale_and_dead_channels_keep_theirs() -> None:
    s = balancing(np.array([1.0, 0, 3, 0]), np.array([2.0, 1, 1, 0]), np.array([0, 1, 0, 1]))
    assert s.shape == (2,)
    assert s[1] == 1
    assert np.isfinite(s).all()


@pytest.mark.parametrize("named", [False, True], ids=["packed", "apart"])
def test_a_decoder_gives_the_same_numbers(named: bool) -> None:
    """The layers of two blocks, behind norms, attention and gates, and the last one."""
    sizes = Llama("wider", 2, 128, 4, 2, 96, 50, 1e4, 40)
    model = onnxslim.compress(decoder(sizes), passes="simplify", check=False).model
    canonicalize(Editor(model), {"com.microsoft::GroupQueryAttention"}, named=named)
    before = ir.snapshot(model)
    assert equalized(model) == (15 if named else 11)
    feed = {"input_ids": np.random.default_rng(0).integers(0, 50, (2, 9))}
    want, got = (outputs(m, feed)[0] for m in (before, model))
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


FED: dict[str, tuple[str, Mapping[str, Sequence[int]]]] = {
    "scale and bias": (NORM, {"g": (64,), "b": (64,)}),
    "factor": (" n = Mul(g, x)", {"g": (64,)}),
    "gate": (GATED, {"v": (64, 64)}),
    "layer with a bias": (" n = Gemm(x, v, b)", {"v": (64, 64), "b": (64,)}),
}


def fed(name: str, more: str = "", result: str = "") -> Model:
    text, weights = FED[name]
    head = f"n (float[N,64] x, float[N,64] x2) => (float[N,65] y{result}) {{"
    body = f"{head}{text} [last] y = Gemm(n, w, c){more} }}"
    return build(body, {**weights, "w": (64, 65), "c": (65,)})


@pytest.mark.parametrize("name", FED)
def test_what_feeds_a_layer_is_divided(name: str) -> None:
    before, model = fed(name), fed(name)
    assert equalized(model) == 1
    feed = feeds(model, 1, {"N": 5})[0]
    want, got = (outputs(m, feed)[0] for m in (before, model))
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
    old, new = (ir.array(m.graph.initializers["w"]) for m in (before, model))
    assert old is not None
    assert new is not None
    assert not np.allclose(old, new)


@pytest.mark.parametrize(
    ("more", "result"), [("", ", float[N,64] n"), (" z = Exp(n)", ", float[N,64] z")], ids=str
)
def test_what_is_read_elsewhere_too_stays(more: str, result: str) -> None:
    model = fed("scale and bias", more, result)
    text = ir.to_text(model)
    assert equalized(model) == 0
    assert ir.to_text(model) == text


def test_an_input_of_the_model_stays() -> None:
    model = build("n (float[N,64] x) => (float[N,65] y) { y = MatMul(x, w) }", {"w": (64, 65)})
    assert equalized(model) == 0


TIED = (
    "n (int64[N,S] ids) => (float[N,S,96] y) { e = Gather(t, ids) m = Mul(e, e) n = Mul(m, g)"
    " w = Transpose <perm=[1,0]> (t) [head] y = MatMul(n, w) }"
)
COPIED = TIED.replace(" w = Transpose <perm=[1,0]> (t)", "").replace("(n, w)", "(n, copy)")
IDS: dict[str, Array] = {"ids": np.arange(96).reshape(4, 24)}


def tied(text: str = TIED) -> Model:
    """A channel in each block is 30 times as large as the others where the layer reads."""
    table = np.random.default_rng(0).normal(size=(96, 64)).astype(np.float32)
    copy: Array = np.ascontiguousarray(np.transpose(table))
    return build(text, {"t": table, "copy": copy, "g": OUTLIERS})


@pytest.mark.parametrize("text", [TIED, COPIED], ids=["transposed", "copied"])
def test_a_tied_table_is_scaled_and_what_is_looked_up_divided(text: str) -> None:
    before, model = tied(text), tied(text)
    assert equalized(model) == 1
    want, got = (outputs(m, IDS)[0] for m in (before, model))
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
    layers, _ = find_layers(model, 32, ())
    assert len(layers[0].table_readers()) == 1


def test_a_table_that_is_an_output_too_stays() -> None:
    model = tied(TIED.replace(" y)", " y, float[N,S,64] e)"))
    assert equalized(model) == 0


# In the pass


def outliers() -> Model:
    text = "n (float[N,64] x) => (float[N,64] y) { n = Mul(x, g) y = MatMul(n, w) }"
    return build(text, {"g": OUTLIERS, "w": (64, 64)})


def test_outliers_cost_less_where_samples_show_them() -> None:
    found: list[float] = []
    for samples in (None, feeds(outliers(), 8, {"N": 16})):
        model = outliers()
        quantize(model, samples, scheme="weight")
        assert kernels(model)["MatMulNBits"] == 1
        found.append(sqnr_db(outliers(), model, feeds(model, 4, {"N": 16})))
    assert found[1] > found[0] + 3


@pytest.mark.parametrize("form", ["standard", "nbits"])
def test_a_tied_table_is_stored_once_and_rounds_better(form: str) -> None:
    found: list[float] = []
    for samples in (None, [IDS]):
        model = tied()
        result = quantize(model, samples, scheme="weight", weight_form=form)
        assert result.layers[0].node == "head"
        assert len(result.layers) == 2
        assert kernels(model)["MatMulNBits"] == 1
        want, got = (outputs_fused(m) for m in (tied(), model))
        found.append(-10 * float(np.log10(np.square(got - want).sum() / np.square(want).sum())))
    assert found[1] > found[0] + 3


def outputs_fused(model: Model) -> Array:
    return open_session(model).run(IDS)["y"]
