"""What is known of the numbers in a model: seen on calibration samples, or stated by its
BatchNormalizations. Tensors go by name, so that the facts hold for snapshots too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from onnxslim import ir
from onnxslim.analyses.layer_stats import Moments, Statistics, Tap
from onnxslim.analyses.linear import Linear
from onnxslim.analyses.tensor_stats import TensorRange
from onnxslim.ir import Array
from onnxslim.passes.quant.know.importance import bin_importance, channel_axis, importance
from onnxslim.passes.quant.know.paired import Paired
from onnxslim.passes.quant.know.ranges import Method, Observed, find_range
from onnxslim.passes.quant.qparams import QParams

Range = tuple[float, float]
Memo = dict[object, "Array | None"]
Plans = dict[str, tuple[object, object]]  # layer -> what its last plan depends on, and the plan


@dataclass(frozen=True)
class Channels:
    """What is known per channel; each float64 [C]."""

    min: Array
    max: Array
    mean: Array


class Facts(Protocol):
    """Ranges, means and errors of tensors; None for what is not known."""

    @property
    def memo(self) -> Memo:
        """Results that are worth keeping between trials."""
        ...

    @property
    def plans(self) -> Plans:
        """The last plan of each layer; most trials change few."""
        ...

    @property
    def pairs(self) -> dict[str, Paired]:
        """By layer, what it reads in the quantized model; filled while that is made."""
        ...

    def moments(self, tap: Tap) -> Moments | None:
        """Mean and covariance of the rows that a layer reads."""

    def known_moments(self) -> Mapping[Tap, Moments]:
        """Those that are there already: nothing is run for them."""
        ...

    def range(
        self, tensor: str, method: Method, percentile: float, readers: Sequence[Linear] = ()
    ) -> Range | None:
        """The lowest and highest number that should get an integer of its own; with the method
        "output" as is best for the outputs of `readers`."""

    def unknown(self, tensor: str) -> str:
        """Why the range of a tensor is not known, as the reason to leave its layers in float."""
        ...

    def channels(self, tensor: str, axis: int) -> Channels | None:
        """Extremes and mean per channel, if these lie on `axis`: 1 or -1."""

    def local_db(self, tensor: str, params: QParams) -> float | None:
        """Variance to noise of the tensor quantized with these parameters, in dB."""


class Spans(Protocol):
    """Ranges that were collected."""

    @property
    def tensors(self) -> Mapping[str, TensorRange]:
        """By name."""
        ...

    @property
    def missing(self) -> Mapping[str, str]:
        """Why others are not among them."""
        ...


@dataclass(frozen=True)
class Seen:
    """Facts from calibration samples. `stats` and `rows` are collected when first asked; `held` is
    what there is of `rows` before."""

    spans: Spans
    stats: Callable[[], Statistics]
    rows: Callable[[], Mapping[Tap, Moments]] = dict[Tap, Moments]
    held: Callable[[], Mapping[Tap, Moments]] = dict[Tap, Moments]
    memo: Memo = field(default_factory=dict["object", "Array | None"], repr=False)
    plans: Plans = field(default_factory=dict[str, tuple[object, object]], repr=False)
    pairs: dict[str, Paired] = field(default_factory=dict[str, Paired], repr=False)
    _ranges: dict[object, Range | None] = field(
        default_factory=dict["object", "Range | None"], repr=False
    )

    def range(
        self, tensor: str, method: Method, percentile: float, readers: Sequence[Linear] = ()
    ) -> Range | None:
        """By the method; searched once. None for a tensor of zeros: whatever the layer does with
        other numbers, these samples do not tell."""
        of = readers if method == "output" else ()
        key = tensor, method, percentile, tuple(id(ir.constant(layer.weight)) for layer in of)
        if key not in self._ranges:
            self._ranges[key] = self._found_range(tensor, method, percentile, of)
        return self._ranges[key]

    def _found_range(
        self, tensor: str, method: Method, percentile: float, readers: Sequence[Linear]
    ) -> Range | None:
        span = self.spans.tensors.get(tensor)
        if span is None or span.min == span.max == 0:
            return None
        observed = None if method == "minmax" else self._observed(tensor)
        if observed is None:
            return span.min, span.max
        return find_range(self._weighted(tensor, observed, readers), method, percentile)

    def _weighted(self, tensor: str, seen: Observed, readers: Sequence[Linear]) -> Observed:
        """Each number counted as often as the readers make of its error, as far as that is known:
        where they agree on the channels, and these were seen."""
        axes = {channel_axis(layer) for layer in readers}
        channels = self.channels(tensor, *axes) if len(axes) == 1 else None
        known = [importance(layer) for layer in readers]
        if channels is None or any(of.shape != channels.min.shape for of in known):
            return seen
        step, total = (seen.high - seen.low) / len(seen.counts), np.sum(known, axis=0)
        by_bin = bin_importance(seen.centers, step, channels.min, channels.max, total)
        return replace(seen, counts=seen.counts * by_bin)

    def unknown(self, tensor: str) -> str:
        """Never excited, or the reason of the statistics."""
        if tensor in self.spans.tensors:
            return f"calibration never excites it: '{tensor}' is 0 in all samples"
        why = self.spans.missing.get(tensor, "no sample was seen")
        return f"the range of '{tensor}' is unknown: {why}"

    def channels(self, tensor: str, axis: int) -> Channels | None:
        """As they were seen."""
        span = self.spans.tensors.get(tensor)
        if span is None or span.channels is None or span.channel_axis != axis:
            return None
        return Channels(span.channels.min, span.channels.max, span.channels.mean)

    def moments(self, tap: Tap) -> Moments | None:
        """As they were seen."""
        return self.rows().get(tap)

    def known_moments(self) -> Mapping[Tap, Moments]:
        """As they were seen, if they were."""
        return self.held()

    def local_db(self, tensor: str, params: QParams) -> float | None:
        """Over the histogram's bins."""
        observed = self._observed(tensor)
        if observed is None:
            return None
        noise = observed.squared_error(params)
        mean = float(np.average(observed.centers, weights=observed.counts))
        signal = float((observed.counts * (observed.centers - mean) ** 2).sum())
        return 10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30)))

    def _observed(self, tensor: str) -> Observed | None:
        stats = self.stats().tensors.get(tensor)
        if stats is None:
            return None
        bins = stats.histogram
        return Observed(stats.min, stats.max, bins.counts, bins.low, bins.high)


@dataclass(frozen=True)
class Stated:
    """Facts without data: intervals that follow from the model itself."""

    intervals: Mapping[str, Range]
    memo: Memo = field(default_factory=dict["object", "Array | None"], repr=False)
    plans: Plans = field(default_factory=dict[str, tuple[object, object]], repr=False)
    pairs: dict[str, Paired] = field(default_factory=dict[str, Paired], repr=False)

    def range(
        self, tensor: str, method: Method, percentile: float, readers: Sequence[Linear] = ()
    ) -> Range | None:
        """The interval, whatever the method."""
        return self.intervals.get(tensor)

    def unknown(self, tensor: str) -> str:
        """Nothing in the model states it."""
        return "the range of its input or output is unknown"

    def channels(self, tensor: str, axis: int) -> Channels | None:
        """Not known."""
        return None

    def moments(self, tap: Tap) -> Moments | None:
        """Not known."""
        return None

    def known_moments(self) -> Mapping[Tap, Moments]:
        """None are."""
        return {}

    def local_db(self, tensor: str, params: QParams) -> float | None:
        """Not known."""
        return None
