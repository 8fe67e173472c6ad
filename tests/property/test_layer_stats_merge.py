"""Streaming, sharding and order leave statistics as they are; a slow oracle says what they are."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxslim.analyses.builder import MomentsBuilder
from onnxslim.analyses.histogram import BINS, Histogram, histogram_of
from onnxslim.analyses.moments import Moments, moments_of, output_error
from onnxslim.analyses.spill import Spill
from onnxslim.analyses.tensor_stats import TensorStats, tensor_stats
from onnxslim.ir import Array

MAGNITUDES = st.sampled_from([1e-42, 1e-20, 1e-3, 1.0, 7.0, 1e5, 1e30])


@st.composite
def parts(draw: st.DrawFn) -> list[Array]:
    """A few arrays [n, 3] of very different magnitude and offset."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    count = draw(st.integers(1, 4))
    return [
        (rng.normal(draw(st.integers(-3, 3)), 1, (draw(st.integers(1, 40)), 3))
         * draw(MAGNITUDES)).astype(np.float32)
        for _ in range(count)
    ]  # fmt: skip


def histogram(x: Array) -> Histogram:
    return histogram_of(x, float(x.min()), float(x.max()))


@settings(deadline=None)
@given(parts())
def test_histogram_counts_what_numpy_counts(arrays: list[Array]) -> None:
    x = np.concatenate(arrays)
    found = histogram(x)
    expected, _ = np.histogram(x.astype(np.float64), bins=found.edges)
    expected[-1] -= np.count_nonzero(x == found.high)  # numpy's last bin is closed
    assert found.counts.tolist() == expected.tolist()
    assert len(found.counts) <= BINS
    assert 0.0 in found.edges


@settings(deadline=None)
@given(parts())
def test_histogram_merge_is_exact_in_any_order(arrays: list[Array]) -> None:
    whole = histogram(np.concatenate(arrays))
    for order in (arrays, arrays[::-1]):
        merged = reduce(Histogram.merge, map(histogram, order))
        assert (merged.exponent, merged.first) == (whole.exponent, whole.first)
        assert merged.counts.tolist() == whole.counts.tolist()


def test_histogram_has_at_least_half_of_its_bins_in_the_range() -> None:
    x = np.linspace(-1, 3, 5000, dtype=np.float32)
    assert len(histogram(x).counts) > BINS // 2


@pytest.mark.parametrize("value", [0.0, 5.0, -5.0, 1e-44])
def test_histogram_of_one_value(value: float) -> None:
    found = histogram(np.full(7, value, np.float32))
    assert found.counts.sum() == 7
    assert found.low <= value <= found.high


@settings(deadline=None)
@given(parts(), st.integers(1, 5))
def test_moments_do_not_depend_on_the_split(arrays: list[Array], groups: int) -> None:
    """Against float64 at once. Float32 Gram matrices round each product by 2^-24 relative to the
    chunk's spread, and a sum of at most 160 of them by as many ulps: 1e-5 of the spread."""
    scaled = [a / max(float(np.abs(a).max()), 1e-30) for a in arrays]
    rows = [np.stack([a * (g + 1) for g in range(groups)]) for a in scaled]
    whole = np.concatenate(rows, axis=1).astype(np.float64)
    mean = whole.mean(axis=1)
    centred = whole - mean[:, None]
    expected = np.einsum("gni,gnj->gij", centred, centred)
    builder = MomentsBuilder(groups, 3)
    for part in rows:
        builder.add(part)
    merged = reduce(Moments.merge, map(moments_of, rows))
    for found in (builder.result(), merged):
        assert found.n == whole.shape[1]
        assert np.abs(found.mean - mean).max() <= 1e-6 * groups
        assert np.abs(found.scatter - expected).max() <= 1e-5 * groups**2 * whole.shape[1]
        second = np.einsum("gni,gnj->gij", whole, whole) / found.n
        assert np.abs(found.second - second).max() <= 1e-5 * groups**2


def test_moments_keep_precision_far_from_zero() -> None:
    """With raw float32 second moments the variance of 1 beside a mean of 1000 would drown."""
    rows = np.random.default_rng(0).normal(1000, 1, (1, 20000, 4)).astype(np.float32)
    builder = MomentsBuilder(1, 4)
    builder.add(rows)
    expected = np.cov(rows[0].astype(np.float64).T, bias=True)
    assert np.abs(builder.result().covariance()[0] - expected).max() < 1e-5


@pytest.mark.parametrize("spill", [None, Spill()])
def test_moments_of_rows_wider_than_a_block_of_products(spill: Spill | None) -> None:
    """Asked for in between, and with the last row of a chunk the last of all: in both the blocks
    below the diagonal are those above it."""
    rows = np.random.default_rng(0).normal(2, 1, (1, 900, 700)).astype(np.float32)
    builder = MomentsBuilder(1, 700, spill)
    builder.add(rows[:, :300])
    assert builder.result().n == 300
    builder.add(rows[:, 300:])
    found, expected = builder.result(), np.cov(rows[0].astype(np.float64).T, bias=True)
    assert np.array_equal(found.scatter, np.swapaxes(found.scatter, 1, 2))
    assert np.abs(found.covariance()[0] - expected).max() < 1e-5
    assert np.abs(found.mean[0] - rows[0].mean(axis=0, dtype=np.float64)).max() < 1e-6


def test_spilled_arrays_keep_what_is_written_and_do_not_overlap() -> None:
    spill = Spill()
    first, other = spill.zeros((3, 5), np.float64), spill.zeros((7,), np.float32)
    assert not first().any()
    first()[1], other()[:] = 2.0, 3.0
    assert first().sum(axis=1).tolist() == [0, 10, 0]
    assert other().tolist() == [3] * 7
    opened = first()
    del spill, first, other
    assert opened[1, 0] == 2  # the file stays as long as one array of it


def test_output_error_is_the_mean_squared_norm() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(0.3, 1, (2, 500, 6)).astype(np.float32)
    change, shift = rng.normal(size=(2, 4, 6)), rng.normal(size=8)
    moved = np.einsum("goi,gni->gno", change, rows) + shift.reshape(2, 1, 4)
    found = moments_of(rows)
    measured = float((moved**2).sum(axis=(0, 2)).mean())
    assert output_error(found, change, shift) == pytest.approx(measured, rel=1e-5)
    best = -(change @ found.mean[:, :, None]).ravel()  # the bias that absorbs the mean
    assert output_error(found, change, best) == pytest.approx(output_error(found, change))
    assert output_error(found, change) < measured


@settings(deadline=None)
@given(parts())
def test_tensor_statistics_merge(arrays: list[Array]) -> None:
    whole = np.concatenate(arrays)
    found = reduce(TensorStats.merge, (tensor_stats(a, -1) for a in arrays))
    assert (found.count, found.min, found.max) == (whole.size, whole.min(), whole.max())
    assert found.absmax == np.abs(whole).max()
    size = float(np.abs(whole).max())
    assert abs(found.mean - whole.mean(dtype=np.float64)) <= 1e-12 * size
    assert found.histogram.counts.sum() == whole.size
    channels = found.channels
    assert channels is not None
    assert channels.count == len(whole)
    assert channels.min.tolist() == whole.min(axis=0).tolist()
    assert channels.absmax.tolist() == np.abs(whole).max(axis=0).tolist()
    assert np.abs(channels.mean - whole.mean(axis=0, dtype=np.float64)).max() <= 1e-12 * size


def test_channels_that_vary_in_number_are_given_up() -> None:
    one, other = (tensor_stats(np.ones((2, n), np.float32), -1) for n in (3, 4))
    assert one.merge(other).channels is None
    assert one.merge(other).count == 14
    with pytest.raises(ValueError, match="channels on axis -1 and 1"):
        one.merge(tensor_stats(np.ones((2, 3), np.float32), 1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("top", [3.0, 1e-6, 6e4])
def test_values_that_are_not_negative_fall_into_the_bins_whose_edges_enclose_them(
    dtype: type[np.floating[Any]], top: float
) -> None:
    values = np.append(np.random.default_rng(0).uniform(0, top, 5000), [0, top]).astype(dtype)
    found = histogram_of(values, 0.0, float(values.max()))
    counts, _ = np.histogram(values.astype(np.float64), found.edges)
    assert np.array_equal(found.counts, counts)
