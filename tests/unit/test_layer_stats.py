from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.builder import MomentsBuilder
from onnxslim.analyses.columns import columns
from onnxslim.analyses.layer_stats import LayerStats, Statistics, Tap, Window
from onnxslim.analyses.plan import BUDGET, Watch, plan
from onnxslim.errors import DataError
from onnxslim.ir import Array
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Feed, FeedList, Samples
from onnxslim.runtime.session import open_session
from onnxslim.targets.base import Target

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
CONV = ir.parse_text(f"""{HEAD} g (float[N, 2, H, W] x) => (float[N, 2, H, W] y)
  <float[2, 2, 1, 1] w = {{1, -1, 2, 0}}> {{
  a = Relu (x)
  b = Conv (a, w)
  y = Relu (b)
}}""")
KERNEL = Tap("a", Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1)))


class Counted(Samples):
    """Random feeds made on demand, which count how often they are read."""

    def __init__(self, make: Callable[[int], Feed], count: int) -> None:
        self._make, self._count, self.reads = make, count, 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Feed:
        self.reads += 1
        return self._make(index)


def image(index: int, *shape: int) -> Feed:
    return {"x": np.random.default_rng(index).normal(size=shape).astype(np.float32)}


def collect(
    model: ir.Model,
    samples: Samples | None,
    request: LayerStats,
    cache: Path | None = None,
    threads: int = 1,
) -> Statistics:
    with ThreadPoolExecutor(1) as executor:
        env = Environment(Target("test"), executor, calib=samples, cache=cache, threads=threads)
        return AnalysisManager(model, env).get(request)


def inner(model: ir.Model, samples: Samples, name: str) -> list[Array]:
    session = open_session(model, extra_outputs=[name])
    return [session.run(feed, [name])[name] for feed in samples]


def test_statistics_are_those_of_all_samples() -> None:
    samples = Counted(lambda i: image(i, 1, 2, 5, 6), 9)
    found = collect(CONV, samples, LayerStats(("a", "y"), (KERNEL,)))
    seen = np.concatenate(inner(CONV, samples, "a"))
    stats = found.tensors["a"]
    assert (stats.count, stats.min, stats.max) == (seen.size, 0.0, seen.max())
    assert stats.mean == pytest.approx(seen.mean(dtype=np.float64), rel=1e-9)
    assert stats.channels is not None
    assert stats.channels.max.tolist() == seen.max(axis=(0, 2, 3)).tolist()
    rows = columns(seen, KERNEL).astype(np.float64)
    second = np.einsum("gni,gnj->gij", rows, rows) / rows.shape[1]
    assert found.moments[KERNEL].n == 9 * 30
    assert np.abs(found.moments[KERNEL].second - second).max() < 1e-5
    assert set(found.tensors) == {"a", "y"}
    assert not found.missing


def test_threads_change_nothing() -> None:
    samples = Counted(lambda i: image(i, 1, 2, 5, 6), 9)
    request = LayerStats(("x", "a", "b", "y"), (KERNEL,))
    one, three = (collect(CONV, samples, request, threads=n) for n in (1, 3))
    assert list(one.tensors) == list(three.tensors) == ["x", "a", "b", "y"]
    for name, stats in one.tensors.items():
        other = three.tensors[name]
        assert (stats.min, stats.max, stats.mean) == (other.min, other.max, other.mean)
        assert np.array_equal(stats.histogram.counts, other.histogram.counts)
    assert np.array_equal(one.moments[KERNEL].second, three.moments[KERNEL].second)


def test_a_matrix_product_has_its_channels_on_the_last_of_four_axes() -> None:
    model = ir.parse_text(f"""{HEAD} g (float[N, 4, 3, 4] x) => (float[N, 4, 3, 4] y)
      <float[4, 4] w = {{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}}> {{
      a = Relu (x)
      b = MatMul (a, w)
      y = Relu (b)
    }}""")
    samples = Counted(lambda i: image(i, 1, 4, 3, 4), 3)
    stats = collect(model, samples, LayerStats(("a",))).tensors["a"]
    seen = np.concatenate(inner(model, samples, "a"))
    assert (stats.channel_axis, stats.channels is None) == (-1, False)
    assert stats.channels is not None
    assert stats.channels.max.tolist() == seen.max(axis=(0, 1, 2)).tolist()


def test_samples_of_any_size_stream() -> None:
    samples = Counted(lambda i: image(i, 1, 2, 3 + i % 3, 4), 7)
    found = collect(CONV, samples, LayerStats(("a",), (KERNEL,)))
    assert found.moments[KERNEL].n == sum(4 * (3 + i % 3) for i in range(7))
    assert found.tensors["a"].max == max(a.max() for a in inner(CONV, samples, "a"))


def test_samples_are_stacked_only_where_that_changes_nothing() -> None:
    """The mean over the first axis mixes samples, so each must run alone."""
    mixing = ir.parse_text(f"""{HEAD} g (float[N, 2] x) => (float[N, 2] y)
      <int64[1] axes = {{0}}> {{
      m = ReduceMean <keepdims = 1> (x, axes)
      y = Sub (x, m)
    }}""")
    samples = Counted(lambda i: image(i, 3, 2), 5)
    found = collect(mixing, samples, LayerStats(("y",)))
    expected = np.concatenate(inner(mixing, samples, "y"))
    assert found.tensors["y"].max == expected.max()


def test_batching_does_not_change_which_rows_are_drawn() -> None:
    """A budget of one byte watches each tensor alone and runs each sample alone."""
    samples = Counted(lambda i: image(i, 1, 2, 8, 8), 5)
    request = LayerStats(("y",), (KERNEL, Tap("b", KERNEL.window)), positions=10)
    narrow = LayerStats(request.tensors, request.taps, positions=10, budget=1)
    one, other = collect(CONV, samples, request), collect(CONV, samples, narrow)
    for tap in request.taps:
        assert one.moments[tap].n == other.moments[tap].n == 50
        difference = one.moments[tap].second - other.moments[tap].second
        assert np.abs(difference).max() < 1e-5
    assert (
        one.tensors["y"].histogram.counts.tolist() == other.tensors["y"].histogram.counts.tolist()
    )


def test_sums_that_do_not_fit_are_spilled_and_the_samples_run_once() -> None:
    """Five taps of 18 features, and rows that wait for them: 1.4 MB."""
    names = "abcde"
    body = " ".join(f"{y} = Relu ({x})" for x, y in pairwise("x" + names))
    model = ir.parse_text(f"""{HEAD} g (float[N, 2, 8, 8] x) => (float[N, 2, 8, 8] e)
      {{ {body} }}""")
    taps = tuple(Tap(name, KERNEL.window) for name in names)
    samples = Counted(lambda i: image(i, 1, 2, 8, 8), 5)
    wide = collect(model, samples, LayerStats((), taps)).moments
    before = samples.reads
    narrow = collect(model, samples, LayerStats((), taps, budget=500_000)).moments
    assert samples.reads - before == 1 + 2 + 5  # for shapes, for stacking, and the run
    assert list(narrow) == list(taps)
    for tap in taps:
        assert np.array_equal(narrow[tap].scatter, wide[tap].scatter)
        assert narrow[tap].n == 5 * 64


def test_two_shards_merge_to_the_whole() -> None:
    samples = Counted(lambda i: image(i, 1, 2, 4, 4), 6)
    request = LayerStats(("a",), (KERNEL,))
    whole = collect(CONV, samples, request)
    shards = [collect(CONV, samples.take(part), request) for part in ([0, 1, 2], [3, 4, 5])]
    merged = shards[0].merge(shards[1])
    assert merged.samples == 6
    assert merged.tensors["a"].histogram.counts.tolist() == (
        whole.tensors["a"].histogram.counts.tolist()
    )
    difference = merged.moments[KERNEL].scatter - whole.moments[KERNEL].scatter
    assert np.abs(difference).max() < 1e-3


def test_cache_answers_again_and_resumes(tmp_path: Path) -> None:
    samples = Counted(lambda i: image(i, 1, 2, 4, 4), 6)
    first = collect(CONV, samples, LayerStats(("a",)), tmp_path)
    before = samples.reads
    again = collect(CONV, samples, LayerStats(("a",)), tmp_path)
    assert samples.reads - before == len(samples)  # only to know that they are the same
    assert again.tensors["a"].histogram.counts.tolist() == (
        first.tensors["a"].histogram.counts.tolist()
    )
    more = collect(CONV, samples, LayerStats(("a",), (KERNEL,)), tmp_path)
    plain = collect(CONV, samples, LayerStats(("a",), (KERNEL,)))
    assert np.array_equal(more.moments[KERNEL].second, plain.moments[KERNEL].second)
    assert np.array_equal(more.tensors["a"].channels.mean, plain.tensors["a"].channels.mean)  # type: ignore[union-attr]


def test_cache_does_not_serve_other_data_or_damaged_files(tmp_path: Path) -> None:
    request = LayerStats(("a",), (KERNEL,))
    collect(CONV, Counted(lambda i: image(i, 1, 2, 4, 4), 3), request, tmp_path)
    other = Counted(lambda i: image(i + 50, 1, 2, 4, 4), 3)
    expected = collect(CONV, other, request)
    found = collect(CONV, other, request, tmp_path)
    assert found.tensors["a"].max == expected.tensors["a"].max
    for file in (tmp_path / "layer_stats").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    repaired = collect(CONV, other, request, tmp_path)
    assert repaired.tensors["a"].max == expected.tensors["a"].max
    assert np.array_equal(repaired.moments[KERNEL].mean, expected.moments[KERNEL].mean)


def test_padding_is_left_out() -> None:
    model = ir.parse_text(f"""{HEAD} g (float[N, S, 3] x, int64[N, S] attention_mask)
      => (float[N, S, 3] y) {{ y = Relu (x) }}""")

    def text(index: int) -> Feed:
        x = image(index, 1, 6, 3)["x"]
        mask = np.array([[1, 1, 1, 1, 0, 0]], np.int64)
        x[0, 4:] = 1e6
        return {"x": x, "attention_mask": mask}

    samples = Counted(text, 4)
    found = collect(model, samples, LayerStats(("y",), (Tap("y"),)))
    assert found.tensors["y"].max < 100
    assert found.moments[Tap("y")].n == 4 * 4
    kept = np.concatenate([y[0, :4] for y in inner(model, samples, "y")])
    assert np.abs(found.moments[Tap("y")].mean[0] - kept.mean(axis=0)).max() < 1e-6


def test_what_cannot_be_watched_is_named_with_the_reason() -> None:
    model = ir.parse_text(f"""{HEAD} g (bool c, float[2, 2] x) => (float[2, 2] y)
      <float[2, 2] w = {{1, 2, 3, 4}}> {{
      i = Cast <to = 6> (x)
      n = Log (x)
      m = Relu (n)
      y = If (c) <then_branch = t () => (float[2, 2] p) {{ p = MatMul (m, w) }},
                  else_branch = e () => (float[2, 2] q) {{ q = Relu (m) }}>
    }}""")
    feed: Feed = {"c": np.array(True), "x": np.full((2, 2), -1.0, np.float32)}
    good: Feed = {"c": np.array(True), "x": np.full((2, 2), 1.0, np.float32)}
    found = collect(
        model,
        FeedList([good, feed]),
        LayerStats(("i", "n", "w", "p", "nothing", "x"), (Tap("m"),)),
    )
    assert dict(found.missing) == {
        "i": "it holds int32, not floats",
        "n": "it holds NaN or infinity in sample 1",
        "m": "it holds NaN or infinity in sample 1; the first value that does is 'n'",
        "w": "it is a constant",
        "p": "it lies inside a subgraph or a function",
        "nothing": "the model has no such value",
    }
    assert set(found.tensors) == {"x"}


@pytest.mark.parametrize("samples", [None, FeedList([])])
def test_without_samples(samples: Samples | None) -> None:
    with pytest.raises(DataError, match="need calibration samples; give them with --calib"):
        collect(CONV, samples, LayerStats(("a",)))


def test_plan_keeps_every_run_within_the_budget() -> None:
    shapes = {f"t{i}": (1, 64, 56, 56) for i in range(40)}
    watches = [Watch(name, True, (Tap(name, KERNEL.window),)) for name in shapes]
    batches = plan(watches, shapes)
    assert [w for b in batches for w in b.watches] == watches
    assert len(batches) > 1
    for batch in batches:
        moving = batch.stack * sum(4 * 3 * 64 * 56 * 56 for _ in batch.watches)
        assert moving < BUDGET


def test_a_tensor_of_unknown_size_is_watched_alone() -> None:
    batches = plan([Watch("a", True), Watch("b", True), Watch("c", True)], {"a": (1,), "c": (1,)})
    assert [[w.tensor for w in b.watches] for b in batches] == [["b"], ["a", "c"]]


def test_sums_too_large_for_their_type_are_infinite_without_a_word() -> None:
    builder = MomentsBuilder(1, 2)
    builder.add(np.array([[[1e30, 1.0], [-1e30, 2.0]]], np.float32))
    moments = builder.result()  # a RuntimeWarning would be an error here
    assert np.isinf(moments.scatter[0, 0, 0])
    assert moments.scatter[0, 1, 1] == 0.5
