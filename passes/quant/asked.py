"""What the options of the pass leave open: where a search starts, and what it tries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.search import Alternatives
from onnxslim.passes.quant.weights.layers import FEW_BITS

if TYPE_CHECKING:
    from onnxslim.passes.quant.quant import Quant


def first_choices(options: Quant, excluded: frozenset[str]) -> Choices:
    """Where the search starts."""
    return Choices(
        method="mse" if options.ranges == "auto" else options.ranges,
        percentile=options.percentile,
        bias_correction=options.bias_correction,
        smooth=options.smooth == "on",
        second_order=options.rounding in ("second_order", "sequential") or fits(options),
        per_channel=options.per_channel,
        bits=options.weight_bits,
        excluded=excluded,
    )


ENOUGH = 256
"""Samples from which layers are rounded one after the other by themselves. With 64 views of 8
photos an EfficientNet-Lite0 lost 0.4 dB on other photos by it; with 512 images a ResNet gained 1.8.
"""


def fits(options: Quant) -> bool:
    """Whether the bits are so few that the nearest integers are never tried."""
    return options.rounding == "auto" and options.weight_bits <= FEW_BITS


RANGES: tuple[Mapping[str, Any], ...] = (
    {"method": "minmax"},
    {"method": "output"},
    {"method": "percentile", "percentile": 99.99},
)
"""What `ranges=auto` tries beside the least squared error. Entropy is not among them: on every
trained model at hand it was worse, as it clips what 8 bits still hold well."""


def alternatives(options: Quant) -> Iterable[Alternatives]:
    """The steps of the search: what the options leave open."""
    if options.ranges == "auto":
        yield lambda now: [replace(now, **tried) for tried in RANGES]
    if options.smooth == "auto":
        yield lambda now: [replace(now, smooth=True)]
    if options.rounding == "auto" and not fits(options):
        yield lambda now: [replace(now, second_order=True)]
