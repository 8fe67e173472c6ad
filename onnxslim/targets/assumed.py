"""What is assumed of a processor that is not there to be timed, as data.

Measured on one thread, 64 rows and more, codes in blocks of 32. With VNNI, 768 x 3072: int8 3.5
times as fast as float, codes of 8 bits alone 1.44, of 4 bits 1.24 times. With AVX2 alone, 384 x
384 to 768 x 3072: 1.65 to 2.2, 0.57 to 0.63 and 0.82 to 1.03 times. A single row reads its weight
from memory, which codes make 1.3 to 3.4 times as fast on either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Assumed:
    """Rates of one thread: 1e9 multiply-accumulates a second of operators with a weight, in
    float, in int8 and with the weight alone in codes of so many bits; nanoseconds per element of
    the result of others."""

    float_gmacs: float = 50.0
    int8_gmacs: float = 150.0
    codes_gmacs: Mapping[int, float] = field(default_factory=lambda: {8: 72.0, 4: 62.0})
    float_ns: float = 0.25
    int8_ns: float = 0.15


ASSUMED = Assumed()

WITHOUT_VNNI = Assumed(int8_gmacs=92.0, codes_gmacs={8: 30.0, 4: 44.0})
"""Of AVX2, and of AVX-512 without it."""
