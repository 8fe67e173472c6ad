"""Layers that are added to something make up for what that lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.prune import choose, repair
from onnxslim.passes.refit import rows as module
from onnxslim.passes.refit.refit import refit
from onnxslim.passes.refit.rows import Wanted, collect, target_of
from onnxslim.passes.refit.spot import skips, spots_of
from onnxslim.passes.refit.stretches import Pair, Stretches, halves
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import FeedList
from onnxslim.runtime.session import open_session
from onnxslim.targets import get_target
from tests.quantizing import build, feeds
from tests.unit.test_prune_pass import prune

BLOCKS = """g (float[N,12] x) => (float[N,12] y) {
  a = Gemm (x, w1, b1)
  h = Gemm (a, w2, b2)  r = Relu (h)  c = MatMul (r, w3)  d = Add (c, b3)  s = Add (d, a)
  i = Gemm (s, w4, b4)  t = Relu (i)  e = Gemm (t, w5, b5)  y = Add (s, e) }"""
WEIGHTS = {
    "w1": (12, 12), "b1": (12,), "w2": (12, 24), "b2": (24,), "w3": (24, 12), "b3": (12,),
    "w4": (12, 24), "b4": (24,), "w5": (24, 12), "b5": (12,),
}  # fmt: skip
NAMES = ["a", "h", "d", "i", "e"]


def damaged(original: Model, name: str) -> Model:
    model, rng = ir.snapshot(original), np.random.default_rng(1)
    value = model.graph.initializers[name]
    content = ir.array(value)
    assert content is not None
    worse: Array = content + rng.normal(0, 0.1, content.shape).astype(np.float32)
    Editor(model).replace_initializer(value, worse)
    return model


@pytest.fixture
def env() -> Iterator[Environment]:
    original = build(BLOCKS, WEIGHTS)
    with ThreadPoolExecutor(1) as executor:
        samples = FeedList(feeds(original, 40, {"N": 16}))
        yield Environment(get_target("ort-cpu"), executor, calib=samples)


def test_only_what_is_there_before_counts() -> None:
    model = build(BLOCKS, WEIGHTS)
    assert skips(model, NAMES) == ["a", "s"]
    weights = {"w1": (4, 4), "w2": (4, 4), "b": (4,)}
    both = build(
        """g (float[N,4] x) => (float[N,4] y) {
          a = Gemm (x, w1, b)  c = Gemm (x, w2, b)  y = Add (a, c) }""",
        weights,
    )
    assert skips(both, ["a"]) == []  # the other branch runs later, and makes up for this one
    assert skips(both, ["a", "c"]) == ["a"]
    onto_input = build(
        "g (float[N,4] x) => (float[N,4] y) { a = Gemm (x, w1, b)  y = Add (a, x) }", weights
    )
    assert skips(onto_input, ["a"]) == []  # the same in both models


def test_the_target_is_what_the_sum_lacks(env: Environment) -> None:
    original = build(BLOCKS, WEIGHTS)
    model = damaged(original, "w1")
    assert isinstance(env.calib, FeedList)
    parts = halves(env.calib, 256)
    (spot,) = spots_of(model, ["d"])
    wanted = Wanted(spot.layer, "d", keep=True, skip="a")
    (seen,) = collect(Pair.of(original, model, parts, 1), [wanted], env)
    old, new = (open_session(m, extra_outputs=["a", "r", "d"]) for m in (original, model))
    expected = [
        np.concatenate([b["r"], a["d"] + a["a"] - b["a"]], axis=1)
        for a, b in ((old.run(feed), new.run(feed)) for feed in parts.fit)
    ]
    rows = seen[0].all_rows()[0]
    np.testing.assert_allclose(rows, np.concatenate(expected), rtol=1e-4, atol=1e-4)


def test_a_branch_makes_up_for_an_error_before_it(env: Environment) -> None:
    """The layer that errs is not fitted; only what is added to its result is."""
    original = build(BLOCKS, WEIGHTS)
    errors: list[float] = []
    for in_turn in (False, True):
        model = damaged(original, "w1")
        done, why = refit(original, model, ["d", "e"], env, in_turn=in_turn)
        assert done is not None, why
        errors.append(done.after / done.before)
    assert errors[1] < 0.5 * errors[0]


def test_outputs_go_on_from_what_was_kept() -> None:
    model = build(BLOCKS, WEIGHTS)
    samples = FeedList(feeds(model, 5, {"N": 3}))
    runs = Stretches(model, samples, 1)
    list(runs.over(["r"], ["c"]))
    kept = list(runs.kept)
    changed = damaged(model, "w3")
    whole = open_session(changed)
    runs.model = changed
    for found, number in zip(runs.outputs(3), (3, 4), strict=True):
        np.testing.assert_allclose(
            found["y"], whole.run(samples[number])["y"], rtol=1e-5, atol=1e-5
        )
    assert runs.kept == kept


@pytest.mark.parametrize("steps", [1, 2])
def test_what_a_cut_stream_lacks_is_compared_with_what_is_left_of_it(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream that the branches are added to loses channels as well."""
    text = """g (float[N,4,6,6] x) => (float[N,3] y) {
      a = Conv <pads = [1,1,1,1]> (x, w1, b1)
      h = Conv (a, w2, b2)  r = Relu (h)  c = Conv (r, w3, b1)  s = Add (c, a)
      i = Conv (s, w4, b2)  t = Relu (i)  e = Conv (t, w5, b1)  u = Add (e, s)
      p = GlobalAveragePool (u)  f = Flatten (p)  y = Gemm (f, w6, b3) }"""
    weights = {
        "w1": (16, 4, 3, 3), "b1": (16,), "w2": (32, 16, 1, 1), "b2": (32,), "w3": (16, 32, 1, 1),
        "w4": (32, 16, 1, 1), "w5": (16, 32, 1, 1), "w6": (16, 3), "b3": (3,),
    }  # fmt: skip
    original = build(text, weights)
    met: dict[str, set[int]] = {}

    def target(wanted: Wanted, ys: Mapping[str, Array], zs: Mapping[str, Array]) -> Array:
        if wanted.skip:
            assert ys[wanted.skip].shape == zs[wanted.skip].shape
            met.setdefault(wanted.skip, set()).add(zs[wanted.skip].shape[1])
        return target_of(wanted, ys, zs)

    monkeypatch.setattr(module, "target_of", target)
    prune(ir.snapshot(original), feeds(original, 40, {"N": 1}), share=0.5, schedule=steps)
    assert set(met) == {"a", "s"}
    assert all(min(sizes) < 16 for sizes in met.values())


@pytest.mark.parametrize("afforded", [60, 61])
def test_layers_are_fitted_in_turn_where_that_can_be_afforded(
    afforded: int, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(*_: object, in_turn: bool, **__: object) -> tuple[None, str]:
        seen.append(in_turn)
        return None, "not tried"

    def affordable(*_: object) -> int:
        return afforded

    seen: list[bool] = []
    monkeypatch.setattr(choose, "affordable", affordable)
    monkeypatch.setattr(repair, "refit", noted)
    prune(build(BLOCKS, WEIGHTS), list(env.calib or ()), share=0.5, multiple=1)
    assert seen == [afforded > 60]
