"""Range, mean and distribution of one tensor, over all its values and per channel; mergeable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxslim.analyses.histogram import Histogram, histogram_of
from onnxslim.ir import Array


@dataclass(frozen=True)
class ChannelStats:
    """One number per channel, all float64 [C]."""

    count: int  # values per channel
    min: Array
    max: Array
    mean: Array

    @property
    def absmax(self) -> Array:
        """The largest magnitude of each channel."""
        return np.maximum(np.abs(self.min), np.abs(self.max))

    def merge(self, other: ChannelStats) -> ChannelStats:
        """Those of both."""
        count = self.count + other.count
        mean = self.mean + (other.count / max(count, 1)) * (other.mean - self.mean)
        return ChannelStats(
            count, np.minimum(self.min, other.min), np.maximum(self.max, other.max), mean
        )


@dataclass(frozen=True)
class TensorRange:
    """Extremes and means of a tensor. `channels` is None where their number varies between
    samples."""

    count: int
    min: float
    max: float
    mean: float
    channel_axis: int
    channels: ChannelStats | None

    @property
    def absmax(self) -> float:
        """The largest magnitude."""
        return max(-self.min, self.max)


@dataclass(frozen=True)
class TensorStats(TensorRange):
    """The same and the distribution of all values."""

    histogram: Histogram

    def merge(self, other: TensorStats) -> TensorStats:
        """The statistics of the values of both; histogram and ranges exactly, means to rounding."""
        both = merged_range(self, other)
        return TensorStats(**vars(both), histogram=self.histogram.merge(other.histogram))


def merged_range(one: TensorRange, other: TensorRange) -> TensorRange:
    """The range of the values of both; extremes exactly, means to rounding."""
    if one.channel_axis != other.channel_axis:
        raise ValueError(f"channels on axis {one.channel_axis} and {other.channel_axis}")
    count = one.count + other.count
    return TensorRange(
        count,
        min(one.min, other.min),
        max(one.max, other.max),
        one.mean + (other.count / count) * (other.mean - one.mean),
        one.channel_axis,
        _merged(one.channels, other.channels),
    )


def tensor_stats(x: Array, channel_axis: int) -> TensorStats:
    """The statistics of one finite float array that is not empty. Cost: linear in its size."""
    values = x if x.dtype == np.float64 else np.asarray(x, np.float32)
    if values.ndim == 0:
        values = values.reshape(1)
    rest = tuple(i for i in range(values.ndim) if i != channel_axis % values.ndim)
    low, high = values.min(axis=rest), values.max(axis=rest)
    mean = values.mean(axis=rest, dtype=np.float64)
    found = range_of(int(values.size), low, high, mean, channel_axis)
    return TensorStats(**vars(found), histogram=histogram_of(values, found.min, found.max))


def range_of(count: int, low: Array, high: Array, mean: Array, channel_axis: int) -> TensorRange:
    """The range of `count` numbers from the extremes and means of their channels, each [C]."""
    low, high, mean = (np.asarray(each, np.float64) for each in (low, high, mean))
    return TensorRange(
        count=count,
        min=float(low.min()),
        max=float(high.max()),
        mean=float(mean.mean()),
        channel_axis=channel_axis,
        channels=ChannelStats(count // len(low), low, high, mean),
    )


def _merged(one: ChannelStats | None, other: ChannelStats | None) -> ChannelStats | None:
    if one is None or other is None or one.min.shape != other.min.shape:
        return None
    return one.merge(other)
