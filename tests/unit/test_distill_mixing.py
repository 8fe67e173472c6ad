"""Samples made of two others."""

from __future__ import annotations

import numpy as np

from onnxslim.passes.distill.mixing import Mixed, mixable
from onnxslim.runtime.samples import Feed, FeedList


def _feeds(count: int, shape: tuple[int, ...] = (1, 3)) -> list[Feed]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(count)]


def test_mixes_follow_the_samples_and_lie_between_two_of_those_named() -> None:
    feeds = _feeds(6)
    mixed = Mixed(FeedList(feeds), [0, 2], 40, seed=1)
    assert len(mixed) == 46
    assert all(mixed[i] is feeds[i] for i in range(6))
    low, high = (f(feeds[0]["x"], feeds[2]["x"]) for f in (np.minimum, np.maximum))
    apart = set[bytes]()
    for index in range(6, 46):
        x = mixed[index]["x"]
        assert x.dtype == np.float32
        assert (x >= low - 1e-6).all()
        assert (x <= high + 1e-6).all()
        apart.add(x.tobytes())
    assert len(apart) > 10


def test_mixes_are_the_same_at_each_reading_and_differ_by_the_seed() -> None:
    one, again, other = (Mixed(FeedList(_feeds(9)), range(9), 5, seed) for seed in (3, 3, 4))
    for index in range(9, 14):
        np.testing.assert_array_equal(one[index]["x"], again[index]["x"])
    assert any((one[i]["x"] != other[i]["x"]).any() for i in range(9, 14))


def test_samples_of_other_shapes_stay_as_they_are() -> None:
    feeds = [*_feeds(1), *_feeds(1, (1, 4))]
    mixed = Mixed(FeedList(feeds), [0, 1], 20, seed=0)
    assert {mixed[i]["x"].shape for i in range(2, 22)} == {(1, 3), (1, 4)}
    assert not mixable(FeedList(feeds))


def test_codes_are_not_mixed() -> None:
    ids: list[Feed] = [{"ids": np.array([[1, 2]])}, {"ids": np.array([[3, 4]])}]
    assert not mixable(FeedList(ids))
    assert mixable(FeedList(_feeds(3)))
