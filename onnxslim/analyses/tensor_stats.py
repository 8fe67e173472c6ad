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
class TensorStats:
    """What was seen of a tensor. `channels` is None where their number varies between samples."""

    count: int
    min: float
    max: float
    mean: float
    histogram: Histogram
    channel_axis: int
    channels: ChannelStats | None

    @property
    def absmax(self) -> float:
        """The largest magnitude."""
        return max(-self.min, self.max)

    def merge(self, other: TensorStats) -> TensorStats:
        """The statistics of the values of both; histogram and ranges exactly, means to rounding."""
        if self.channel_axis != other.channel_axis:
            raise ValueError(f"channels on axis {self.channel_axis} and {other.channel_axis}")
        count = self.count + other.count
        return TensorStats(
            count,
            min(self.min, other.min),
            max(self.max, other.max),
            self.mean + (other.count / count) * (other.mean - self.mean),
            self.histogram.merge(other.histogram),
            self.channel_axis,
            _merged(self.channels, other.channels),
        )


def tensor_stats(x: Array, channel_axis: int) -> TensorStats:
    """The statistics of one finite float array that is not empty. Cost: linear in its size."""
    values = x if x.dtype == np.float64 else np.asarray(x, np.float32)
    if values.ndim == 0:
        values = values.reshape(1)
    rest = tuple(i for i in range(values.ndim) if i != channel_axis % values.ndim)
    low = np.asarray(values.min(axis=rest), np.float64)
    high = np.asarray(values.max(axis=rest), np.float64)
    mean = np.asarray(values.mean(axis=rest, dtype=np.float64))
    return TensorStats(
        count=int(values.size),
        min=float(low.min()),
        max=float(high.max()),
        mean=float(mean.mean()),
        histogram=histogram_of(values, float(low.min()), float(high.max())),
        channel_axis=channel_axis,
        channels=ChannelStats(int(values.size) // len(low), low, high, mean),
    )


def _merged(one: ChannelStats | None, other: ChannelStats | None) -> ChannelStats | None:
    if one is None or other is None or one.min.shape != other.min.shape:
        return None
    return one.merge(other)
