"""Rows far longer than the others are shortened; others stay as they are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim.analyses.layer_stats import LayerStats, Tap
from onnxslim.analyses.shorten import Shortener
from onnxslim.ir import Array
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import FeedList
from onnxslim.targets import get_target
from tests.quantizing import build


def _lengths(rows: Array) -> Array:
    found: Array = np.linalg.norm(rows.astype(np.float64), axis=2)
    return found


def test_ordinary_rows_are_given_back_as_they_are() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 100, 8)).astype(np.float32)
    assert Shortener(4.0)(rows) is rows


def test_a_huge_row_keeps_its_direction_and_is_as_long_as_allowed() -> None:
    rows = np.random.default_rng(1).normal(size=(1, 256, 8)).astype(np.float32)
    rows[0, 3] *= 1000
    short = Shortener(4.0)(rows)
    assert short.dtype == rows.dtype
    others = np.delete(np.arange(256), 3)
    assert np.array_equal(short[0, others], rows[0, others])
    assert np.allclose(short[0, 3] / rows[0, 3], (short[0, 3] / rows[0, 3])[0], rtol=1e-5)
    root = np.sqrt(np.square(_lengths(short)).mean())
    assert _lengths(short)[0, 3] == pytest.approx(4 * root, rel=2e-3)  # the level is within 1e-3


def test_the_level_is_that_of_all_rows_so_far() -> None:
    rng = np.random.default_rng(2)
    shorten = Shortener(4.0)
    shorten(rng.normal(size=(1, 1000, 8)))
    short = shorten(np.full((1, 1, 8), 1e4))  # a row alone can be judged by those before it
    assert _lengths(short)[0, 0] == pytest.approx(4 * np.sqrt(8), rel=0.05)  # 1000 rows: 2 %
    assert Shortener(4.0)(np.full((1, 1, 8), 1e4)).max() == 1e4


def test_rows_of_zeros_and_none_at_all_stay() -> None:
    zeros = np.zeros((1, 40, 3), np.float32)
    assert Shortener(2.0)(zeros) is zeros
    empty = np.zeros((1, 0, 3), np.float32)
    assert Shortener(2.0)(empty) is empty


def test_less_than_the_mean_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"times=0\.5 given, expected more than 1"):
        Shortener(0.5)


def test_one_token_does_not_rule_the_covariance_of_a_layer() -> None:
    body = "g (float[N,8] x) => (float[N,8] y) { y = MatMul(x, w) }"
    rows = np.random.default_rng(3).normal(size=(4, 128, 8)).astype(np.float32)
    rows[:, 0] = 1e4
    model = build(body, {"w": np.eye(8, dtype=np.float32)})
    with ThreadPoolExecutor(1) as executor:
        calib = FeedList([{"x": sample} for sample in rows])
        env = Environment(get_target("ort-cpu"), executor, calib=calib)
        tap = Tap("x")
        plain, short = (
            AnalysisManager(model, env).get(LayerStats(taps=(tap,), longest=longest)).moments[tap]
            for longest in (None, 4.0)
        )
    assert np.trace(plain.covariance()[0]) > 1e5
    # 16 times the mean power of 127 rows of 8, which they raise by themselves, for each 128th row
    assert np.trace(short.covariance()[0]) == pytest.approx(8 / (1 - 16 / 128), rel=0.1)
