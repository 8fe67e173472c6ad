"""A model run in stretches gives what it gives as a whole, and less of it is run again."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Editor, Model
from onnxslim.passes.refit import stretches as module
from onnxslim.passes.refit.stretches import Stretches
from onnxslim.runtime.samples import FeedList
from onnxslim.runtime.session import open_session
from tests.quantizing import build, feeds

TEXT = """g (float[N,12] x) => (float[N,12] y) {
  a = Gemm (x, w1, b1)  r = Relu (a)  c = Gemm (r, w2, b2)  s = Add (c, r)  d = Gemm (s, w3, b3)
  y = Add (d, x) }"""
WEIGHTS = {"w1": (12, 16), "b1": (16,), "w2": (16, 16), "b2": (16,), "w3": (16, 12), "b3": (12,)}
BRANCH = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x, bool choice) => (float[N,4] y) {
  a = Relu (x)  b = Neg (a)
  y = If (choice) <then_branch = t () => (o) { o = Identity (a) },
                   else_branch = e () => (p) { p = Identity (b) }> }"""


def samples_of(model: Model) -> FeedList:
    return FeedList(feeds(model, 5, {"N": 3}))


def scaled(model: Model, name: str, by: float) -> None:
    value = model.graph.initializers[name]
    content = ir.array(value)
    assert content is not None
    Editor(model).replace_initializer(value, content * np.float32(by))


def test_later_values_come_from_what_was_kept() -> None:
    model = build(TEXT, WEIGHTS)
    samples = samples_of(model)
    runs = Stretches(model, samples, 1)
    assert all(list(found) == ["a"] for found in runs.over(["a"], ["c", "d"]))
    assert [sorted(kept) for kept in runs.kept] == [["r"]] * 5
    scaled(model, "w1", 0.0)  # before the place: not looked at again
    was = build(TEXT, WEIGHTS)
    scaled(model, "w2", 2.0)
    scaled(was, "w2", 2.0)
    whole = open_session(was, extra_outputs=["r", "s", "d"])
    for found, feed in zip(runs.over(["r", "s"], ["d"]), samples, strict=True):
        wanted = whole.run(feed)
        for name in ("r", "s"):
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-5)
    assert [sorted(kept) for kept in runs.kept] == [["s"]] * 5
    for found, feed in zip(runs.over(["y"]), samples, strict=True):
        np.testing.assert_allclose(found["y"], whole.run(feed)["y"], rtol=1e-5, atol=1e-5)


def test_what_takes_too_much_room_is_not_kept() -> None:
    model = build(TEXT, WEIGHTS)
    size = 5 * 3 * 16 * 4
    for budget, kept in ((size, 5), (size - 1, 0)):
        runs = Stretches(model, samples_of(model), 1, budget)
        found = list(runs.over(["a"], ["c"]))
        assert len(found) == 5
        assert len(runs.kept) == kept


def test_only_the_rest_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = build(TEXT, WEIGHTS), list[int]()

    def opened(part: Model, **options: object) -> object:
        sizes.append(len(part.graph))
        return open_session(part)

    monkeypatch.setattr(module, "open_session", opened)
    runs = Stretches(model, samples_of(model), 1)
    list(runs.over(["a"], ["d"]))
    list(runs.over(["d"]))
    assert sizes == [1]


def test_a_model_with_subgraphs_is_run_as_a_whole() -> None:
    model = ir.parse_text(BRANCH)
    feed = {"x": np.ones((2, 4), np.float32), "choice": np.array(True)}
    runs = Stretches(model, FeedList([feed]), 1)
    (found,) = runs.over(["a"], ["y"])
    assert found["a"].sum() == 8
    assert runs.kept == []
