"""Layers are fitted again stage by stage: what harms the outputs is undone, the rest stays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.refit import refit as module
from onnxslim.passes.refit.refit import activation_work, refit
from onnxslim.passes.refit.solve import solved
from onnxslim.passes.refit.spot import Spot
from onnxslim.passes.refit.stage import fit_stage
from onnxslim.passes.refit.stretches import Pair
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import FeedList
from onnxslim.targets import get_target
from tests.quantizing import build, feeds

TEXT = """g (float[N,12] x) => (float[N,6] y) {
  a = Gemm (x, w1, b1)  r = Relu (a)  c = Gemm (r, w2, b2)  s = Tanh (c)  y = Gemm (s, w3, b3) }"""
WEIGHTS = {"w1": (12, 16), "b1": (16,), "w2": (16, 12), "b2": (12,), "w3": (12, 6), "b3": (6,)}


def weight(model: Model, output: str) -> Array:
    node = next(node for node in model.graph if node.outputs[0].name == output)
    found = ir.array(node.inputs[1])
    assert found is not None
    return found


def test_a_stage_that_harms_the_outputs_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    original = build(TEXT, WEIGHTS)
    model, rng = ir.snapshot(original), np.random.default_rng(0)
    for name in "acy":
        node = next(node for node in model.graph if node.outputs[0].name == name)
        content = weight(model, name)
        worse = content + rng.normal(0, 0.1, content.shape).astype(np.float32)
        editor = Editor(model)
        editor.replace_initializer(editor.unshare(node, 1), worse)
    before = {name: weight(model, name) for name in "acy"}

    def spoiled(
        pair: Pair, spots: list[Spot], env: Environment, *, later: list[Spot], **options: Any
    ) -> int:
        count = fit_stage(pair, spots, env, later=later, **options)
        for spot in spots:
            if spot.output == "c":
                editor = Editor(pair.new.model)
                held = editor.unshare(spot.layer.node, 1)
                editor.replace_initializer(held, 3 * weight(pair.new.model, "c"))
        return count

    monkeypatch.setattr(module, "fit_stage", spoiled)
    samples = FeedList(feeds(original, 40, {"N": 16}))
    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor, calib=samples)
        done, why = refit(original, model, ["a", "c", "y"], env)
    assert done is not None, why
    assert done.layers == 2
    assert done.after < 0.1 * done.before
    assert np.array_equal(weight(model, "c"), before["c"])
    assert not np.array_equal(weight(model, "a"), before["a"])


@pytest.mark.parametrize(
    ("second", "third", "layers"), [(0.5, 0.5005, 2), (0.5, 0.4, 3), (1.001, 1.002, 0)]
)
def test_what_stands_in_the_end_is_where_the_outputs_err_least(
    monkeypatch: pytest.MonkeyPatch, second: float, third: float, layers: int
) -> None:
    """A first stage that may have harmed by chance stands until all are judged."""
    original = build(TEXT, WEIGHTS)
    model, rng = ir.snapshot(original), np.random.default_rng(0)
    noise = iter(rng.normal(0, 0.05, (4, 8)))
    errors = iter([1.0, 1.0005, second, third])

    def errors_of(*_: object) -> Array:
        own: Array = next(noise)
        return np.asarray(next(errors) + own - own.mean())

    def fit_stage(pair: Pair, spots: list[Spot], env: Environment, **_: object) -> int:
        for spot in spots:
            editor = Editor(pair.new.model)
            held = editor.unshare(spot.layer.node, 1)
            editor.replace_initializer(held, 2 * weight(pair.new.model, spot.output))
        return len(spots)

    monkeypatch.setattr(module, "errors_of", errors_of)
    monkeypatch.setattr(module, "fit_stage", fit_stage)
    with ThreadPoolExecutor(1) as executor:
        samples = FeedList(feeds(original, 40, {"N": 4}))
        env = Environment(get_target("ort-cpu"), executor, calib=samples)
        done, why = refit(original, model, ["a", "c", "y"], env)
    changed = [not np.array_equal(weight(model, n), weight(original, n)) for n in "acy"]
    assert changed == [at < layers for at in range(3)]
    if layers:
        assert done is not None
        assert done.layers == layers
        assert done.after == pytest.approx(min(second, third))
    else:
        assert done is None
        assert why == "held-out error of the outputs 1 became 1 at best"


@pytest.mark.parametrize("shape", [(5, 5), (1, 5, 5), (3, 5, 5)])
@pytest.mark.parametrize("definite", [True, False])
def test_systems_of_covariances_are_solved(shape: tuple[int, ...], definite: bool) -> None:
    rng = np.random.default_rng(0)
    half = rng.normal(size=shape)
    matrix = half @ np.swapaxes(half, -1, -2) + (0.1 if definite else -1.0) * np.eye(5)
    wanted = rng.normal(size=(*shape[:-1], 2))
    assert matrix @ solved(matrix, wanted) == pytest.approx(wanted, abs=1e-9)


def test_the_work_of_fits_to_activations_is_that_of_known_ones() -> None:
    """4096 rows of 12 features and 16 outputs, 2 products in each of 16 rounds, and a system of 12
    with 16 right sides, in float64; Tanh is unknown."""
    model = build(TEXT, WEIGHTS)
    assert activation_work(model, ["a", "c", "y"]) == (4096 * 12 * 16 + 12 * 12 * 16) * 2 * 16


def test_where_no_layer_can_be_fitted_better_it_says_so() -> None:
    original = build(TEXT, WEIGHTS)
    samples = FeedList(feeds(original, 40, {"N": 16}))
    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor, calib=samples)
        done, why = refit(original, ir.snapshot(original), [], env)
    assert done is None
    assert why == "no fit of a layer lowers its own error on samples held out"
