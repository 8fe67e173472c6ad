"""Ranges that ONNX Runtime reduces itself are those of the statistics of all values."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.layer_ranges import LayerRanges, Ranges, evenly
from onnxslim.analyses.layer_stats import LayerStats
from onnxslim.errors import DataError
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Feed, FeedList, Samples
from onnxslim.runtime.session import open_session
from onnxslim.targets.base import Target

BODY = """g (float[N, 2, H, W] x) => (float[N, 2, H, W] y, float[N, K] z)
  <float[2, 2, 1, 1] w = {1, -1, 2, 0}, int64[2] flat = {0, -1}> {
  a = Relu (x)
  b = Conv (a, w)
  y = Relu (b)
  s = Transpose <perm = [0, 2, 3, 1]> (y)
  r = Reshape (y, flat)
  z = Neg (r)
  i = Cast <to = 7> (y)
  h = Cast <to = 10> (b)
}"""
NAMES = ("x", "a", "b", "y", "s", "z")


def model_of(opset: int) -> ir.Model:
    return ir.parse_text(f'<ir_version: 8, opset_import: ["" : {opset}]> {BODY}')


def images(count: int, *shape: int) -> FeedList:
    rng = np.random.default_rng(0)
    return FeedList([{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(count)])


def manager(model: ir.Model, samples: Samples | None) -> AnalysisManager:
    executor = ThreadPoolExecutor(1)
    return AnalysisManager(model, Environment(Target("test"), executor, calib=samples))


def assert_same(model: ir.Model, samples: Samples, names: tuple[str, ...]) -> Ranges:
    analyses = manager(model, samples)
    found = analyses.get(LayerRanges(names, outputs=4))
    exact = analyses.get(LayerStats(tensors=names))
    assert set(found.tensors) == set(exact.tensors)
    assert dict(found.missing) == dict(exact.missing)
    for name, seen in exact.tensors.items():
        near, size = found.tensors[name], seen.absmax
        assert (near.count, near.min, near.max) == (seen.count, seen.min, seen.max)
        assert near.channel_axis == seen.channel_axis
        assert (near.channels is None) == (seen.channels is None)
        if near.channels is None or seen.channels is None:
            continue
        assert np.array_equal(near.channels.min, seen.channels.min)
        assert np.array_equal(near.channels.max, seen.channels.max)
        # a float32 sum of n terms is off by at most n eps of the largest sum; eps = 6e-8
        bound = 6e-8 * seen.count * size
        assert np.abs(near.channels.mean - seen.channels.mean).max() <= bound
        assert abs(near.mean - seen.mean) <= bound
    return found


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_ranges_are_those_of_the_statistics(opset: int) -> None:
    assert_same(model_of(opset), images(5, 1, 2, 5, 6), NAMES)


def test_many_samples_go_through_together_where_they_do_not_mix() -> None:
    calls: list[tuple[int, int]] = []
    model, samples = model_of(17), images(70, 1, 2, 5, 6)
    analyses = manager(model, samples)
    env = Environment(
        Target("test"),
        analyses.env.executor,
        calib=samples,
        progress=lambda what, done, total: calls.append((done, total)),
    )
    found = AnalysisManager(model, env).get(LayerRanges(NAMES, outputs=4))
    assert len(calls) < 10
    assert calls[-1] == (70, 70)
    assert_same(model, samples, NAMES)
    session = open_session(model)
    assert list(found.outputs) == evenly(70, 4) == [0, 23, 46, 69]
    for index, outputs in found.outputs.items():
        for name, expected in session.run(samples[index]).items():
            assert np.allclose(outputs[name], expected, atol=1e-6)


def test_samples_that_mix_are_not_put_together() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N, 2, 3] x) => (float[N, 2, 3] y)
    <int64[1] axes = {0}> { m = ReduceMean (x, axes) y = Sub (x, m) }"""
    found = assert_same(ir.parse_text(text), images(70, 2, 2, 3), ("x", "m", "y"))
    assert found.tensors["y"].max > 0


def test_sizes_may_differ_between_samples() -> None:
    feeds: list[Feed] = [*images(40, 1, 2, 5, 6), *images(40, 2, 2, 3, 9)]
    assert_same(model_of(17), FeedList(feeds), NAMES[:-1])


def test_what_is_not_finite_or_no_float32_is_left_to_the_statistics() -> None:
    broken = np.zeros((1, 2, 5, 6), np.float32)
    broken[0, 0, 2, 2] = 3e38
    feeds: list[Feed] = [*images(3, 1, 2, 5, 6), {"x": broken}]
    samples = FeedList(feeds)
    found = assert_same(model_of(17), samples, (*NAMES, "i", "h", "w", "nothing"))
    assert "infinity in sample 3" in found.missing["b"]
    assert "holds int64" in found.missing["i"]
    assert found.missing["nothing"] == "the model has no such value"


def test_padding_is_left_out() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[N, S, 2] x, int64[N, S] attention_mask) => (float[N, S, 2] y)
    { y = Neg (x) m = Cast <to = 1> (attention_mask) }"""
    x = np.array([[[1, 2], [3, 4], [50, 60]]], np.float32)
    samples = FeedList([{"x": x, "attention_mask": np.array([[1, 1, 0]])}])
    assert assert_same(ir.parse_text(text), samples, ("x", "y")).tensors["x"].max == 4


def test_without_samples_there_is_an_error() -> None:
    with pytest.raises(DataError, match="ranges of layers need calibration samples"):
        manager(model_of(17), None).get(LayerRanges(NAMES))
