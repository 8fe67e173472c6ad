"""What is chosen for a model as a whole, before its plan is made: small, comparable, printable."""

from __future__ import annotations

from dataclasses import dataclass

from onnxslim.passes.quant.know.ranges import Method


@dataclass(frozen=True)
class Choices:
    """`excluded` and other names are those of a node's first output: they are unique."""

    method: Method = "minmax"
    percentile: float = 99.999
    bias_correction: bool = True
    smooth: bool = False
    second_order: bool = False  # rounding of weights with regard to their inputs
    per_channel: bool = True
    bits: int = 8
    samples: int = 0  # of calibration: for how many observations a covariance counts
    wide: frozenset[str] = frozenset()  # layers whose weights have 8 bits all the same
    excluded: frozenset[str] = frozenset()  # not static int8
    alone: frozenset[str] = frozenset()  # of those, layers of which the weight alone is in codes
    coarse: frozenset[str] = frozenset()  # static layers, or alone, whose weights have 4 bits
