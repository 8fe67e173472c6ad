"""The proof of a cut: what it lets pass as rounding, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import onnxslim
from onnxslim import ir
from onnxslim.analyses.axes import axis_map
from onnxslim.errors import OptionError
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.prune.cut import cut
from onnxslim.passes.prune.reorder import reorder
from onnxslim.passes.prune.safety import TOLERANCE, differs, noise, relative_gaps
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.session import open_session
from onnxslim.targets import get_target
from tests.prunable import NETWORKS
from tests.pruning import share_of_each
from tests.quantizing import build, feeds


@pytest.fixture
def env() -> Iterator[Environment]:
    with ThreadPoolExecutor(1) as executor:
        yield Environment(get_target("ort-cpu"), executor)


def cut_half(model: Model, env: Environment, spoil: float = 0.0) -> str:
    """Cut half of each group, add to the last weight, and let it be judged."""
    twin, axes = ir.snapshot(model), axis_map(model)
    removed = share_of_each(axes, 0.5)
    editor = Editor(model)
    cut(editor, axes, removed)
    value = model.graph.initializers["w3"]
    content = ir.array(value)
    assert content is not None
    editor.replace_initializer(value, content + np.float32(spoil))
    return differs(twin, model, axes, removed, env)


def test_a_right_cut_passes_and_a_wrong_one_is_told(env: Environment) -> None:
    chain = NETWORKS["chain"]
    assert cut_half(chain.model(), env) == ""
    assert "of its largest value away" in cut_half(chain.model(), env, spoil=1e-3)


# a difference of large sums: rounding of 1e-7 of each is 1e-3 of what is left
CANCELLED = """g (float[N,8] x) => (float[N,4] y) {
  a = MatMul (x, w1)  b = Add (a, large)  c = MatMul (b, w2)  d = MatMul (large, w2)
  y = Sub (c, d) }"""
LARGE: Array = np.full((1, 16), 1e4, np.float32)


def test_what_rounding_alone_changes_is_no_difference(env: Environment) -> None:
    pruned = build(CANCELLED, {"w1": (8, 16), "w2": (16, 4), "large": LARGE})
    twin, axes = ir.snapshot(pruned), axis_map(pruned)
    feed = feeds(twin, 1)[0]
    floor = noise(twin, feed, open_session(twin).run(feed))["y"]
    assert floor > 10 * TOLERANCE
    removed = share_of_each(axes, 0.5)
    cut(Editor(pruned), axes, removed)
    assert differs(twin, pruned, axes, removed, env) == ""


def test_reordering_changes_nothing_but_rounding() -> None:
    model = NETWORKS["residual"].model()
    other = ir.snapshot(model)
    assert reorder(other) >= 2
    ir.verify(other)
    feed = feeds(model, 1)[0]
    one, two = (open_session(m, optimize="none").run(feed) for m in (model, other))
    assert any(not np.array_equal(one[name], two[name]) for name in one)
    assert max(relative_gaps(one, two).values()) < TOLERANCE


def test_a_gap_is_infinite_where_only_one_is_finite() -> None:
    one, two = np.array([1.0, np.nan]), np.array([1.0, 2.0])
    assert relative_gaps({"y": one}, {"y": two})["y"] == np.inf
    assert relative_gaps({"y": one}, {"y": one})["y"] == 0
    assert relative_gaps({"y": two}, {"y": np.array([1.0, 2.5])})["y"] == 0.25


WIDE = """g (float[N,T,8] x) => (float[N,T,5] y) {
  e = MatMul (x, w1)
  n = LayerNormalization (e, gain, shift)  a = MatMul (n, w2)  b = Gelu (a)  c = MatMul (b, w3)
  s = Add (e, c)
  q = Mul (s, s)  m = ReduceMean (q, last)  r = Sqrt (m)  d = Div (s, r)
  y = MatMul (d, w4) }"""
WEIGHTS: dict[str, Sequence[int] | Array] = {
    "w1": (8, 12),
    "gain": (12,),
    "shift": (12,),
    "w2": (12, 20),
    "w3": (20, 12),
    "w4": (12, 5),
    "last": np.array([-1], np.int64),
}


def test_with_width_norms_are_over_what_stays() -> None:
    model = build(WIDE, WEIGHTS, opset=20)
    assert [group.size for group in axis_map(model).groups] == [20]
    axes = axis_map(model, width=True)
    assert sorted(group.size for group in axes.groups) == [12, 20]
    removed = axes.nothing()
    stream = next(group for group in axes.groups if group.size == 12)
    for unit in stream.units[8:]:
        removed[unit] = True
    feed = feeds(model, 1, {"N": 2, "T": 3})[0]
    narrow: dict[str, Sequence[int] | Array] = {
        name: _narrow(name, ir.array(v)) for name, v in model.graph.initializers.items()
    }
    cut(Editor(model), axes, removed)
    found = open_session(model).run(feed)["y"]
    wanted = open_session(build(WIDE, narrow, opset=20)).run(feed)["y"]
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def _narrow(name: str, content: Array | None) -> Array:
    """The weight of the network with 8 channels instead of 12."""
    assert content is not None
    for axis, size in enumerate(content.shape):
        if size == 12:
            content = np.take(content, np.arange(8), axis=axis)
    return content


def test_the_pass_narrows_the_stream_only_with_width() -> None:
    sizes = {}
    for width in ("false", "true"):
        done = onnxslim.compress(
            build(WIDE, WEIGHTS, opset=20), passes=f"prune{{share=0.5 multiple=1 width={width}}}"
        )
        sizes[width] = {
            name: ir.array(value).shape  # type: ignore[union-attr]
            for name, value in done.model.graph.initializers.items()
            if name in ("w1", "w2")
        }
    assert sizes == {
        "false": {"w1": (8, 12), "w2": (12, 10)},
        "true": {"w1": (8, 6), "w2": (6, 10)},
    }


def test_where_only_norms_hold_channels_the_refusal_names_width() -> None:
    body = """g (float[N,8] x) => (float[N,5] y) {
      a = MatMul (x, w1)  n = LayerNormalization (a, gain)  y = MatMul (n, w2) }"""
    model = build(body, {"w1": (8, 12), "gain": (12,), "w2": (12, 5)})
    with pytest.raises(OptionError, match="width=true lets it go"):
        onnxslim.compress(model, passes="prune{share=0.5}")
