"""What an operator may become, as a table: how noisy it is then, and how large its weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FLOAT, INT8, NARROW, ALONE, ALONE_4 = "float32", "int8", "int8 x int4", "weight8", "weight4"
"""NARROW: weights of 4 bits multiplied as bytes, as fast as int8 and half the size; ALONE and
ALONE_4: the weight alone in codes, for some MatMul and Gemm."""


@dataclass(frozen=True)
class Precision:
    """`inputs` and `rounding`: how much there is of the noise that an operator in int8 makes, and
    of that which rounding its weight to 4 bits adds. `bits`: of a number of the weight in the file,
    with the scales of its block."""

    inputs: float
    rounding: float
    bits: float


PRECISIONS: Mapping[str, Precision] = {
    FLOAT: Precision(0.0, 0.0, 32.0),
    INT8: Precision(1.0, 0.0, 8.0),
    NARROW: Precision(1.0, 1.0, 4.25),  # a multiple of 4 bits for 16 codes
    ALONE: Precision(0.1, 0.0, 9.25),  # a scale of 32 bits and a zero point for 32 codes
    ALONE_4: Precision(0.1, 1.0, 5.125),
}
"""A tenth: blocks of 32 numbers with scales of their own are rounded at least so much more finely
than whole tensors."""

FLOAT_NUMBERS: Mapping[str, float] = {FLOAT: 1.0}
"""By precision, what a number of a weight counts where only those in float do."""

BYTES: Mapping[str, float] = {name: row.bits / 8 for name, row in PRECISIONS.items()}
"""By precision, what a number of a weight takes in the file."""
