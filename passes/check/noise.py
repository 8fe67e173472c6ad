"""What changed in each output: power of signal and noise, tolerance, new NaN or Inf, agreement."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxslim.runtime.guards import is_list
from onnxslim.runtime.metrics import Outputs, is_real
from onnxslim.runtime.samples import Array


@dataclass
class OutputNoise:
    """Sums over the samples of one output. Power sums are in float64, whatever its type."""

    name: str
    signal: float = 0.0  # sum of x^2
    noise: float = 0.0  # sum of (y - x)^2
    outside: int = 0  # elements with |y - x| > atol + rtol |x|
    broken: int = 0  # NaN or Inf where the original had a number
    same: int = 0  # equal elements of an output that is no real number
    count: int = 0
    real: bool = False
    problems: list[str] = field(default_factory=list[str])  # it is not the same kind of thing

    @property
    def sqnr_db(self) -> float | None:
        """10 log10(sum x^2 / sum (y - x)^2): inf without noise, None for integers and text."""
        if not self.real:
            return None
        if self.noise == 0.0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal > 0 else -math.inf

    @property
    def agreement(self) -> float | None:
        """The share of equal elements of an output of integers, flags or text."""
        return None if self.real or not self.count else self.same / self.count


class NoiseMeter:
    """Adds up the noise of every output over the samples, in memory of one sample."""

    def __init__(self, atol: float, rtol: float) -> None:
        self._atol, self._rtol = atol, rtol
        self.outputs: dict[str, OutputNoise] = {}

    def add(self, before: Outputs, after: Outputs) -> bool:
        """One sample; False where an output is missing or has another shape or type."""
        fits = True
        for name, value in before.items():
            noise = self.outputs.setdefault(name, OutputNoise(name))
            if problem := _problem(name, value, after):
                fits = False
                if not noise.problems:
                    noise.problems.append(problem)
                continue
            for first, second in _arrays(value, after[name]):
                self._add(noise, first, second)
        return fits

    def _add(self, noise: OutputNoise, first: Array, second: Array) -> None:
        noise.count += first.size
        if not is_real(first):
            noise.same += int((first == second).sum())
            return
        noise.real = True
        x, y = first.astype(np.float64), second.astype(np.float64)
        usable = np.isfinite(x)
        broken = usable & ~np.isfinite(y)
        noise.broken += int(broken.sum())
        usable &= ~broken
        x, y = x[usable], y[usable]
        error = np.abs(y - x)
        noise.signal += float(x @ x)
        noise.noise += float(error @ error)
        noise.outside += int((error > self._atol + self._rtol * np.abs(x)).sum())


def sqnr(outputs: Mapping[str, OutputNoise]) -> dict[str, float]:
    """SQNR in dB of the real-valued outputs."""
    return {n: db for n, noise in outputs.items() if (db := noise.sqnr_db) is not None}


def _arrays(first: Any, second: Any) -> Iterator[tuple[Array, Array]]:
    """The arrays of an output: itself, or those of a sequence; an absent optional has none."""
    if first is None:
        return
    if is_list(first):
        for one, other in zip(first, second, strict=True):
            yield from _arrays(one, other)
    else:
        yield np.asarray(first), np.asarray(second)


def _problem(name: str, value: Any, after: Outputs) -> str:
    """Why two values cannot be compared element by element, or nothing."""
    if name not in after:
        return f"output '{name}' is missing"
    was, now = _kind(value), _kind(after[name])
    return "" if was == now else f"output '{name}' was {was} and is {now}"


def _kind(value: Any) -> str:
    if value is None:
        return "absent"
    if is_list(value):
        return f"a list of {', '.join(_kind(v) for v in value) or 'nothing'}"
    array = np.asarray(value)
    return f"{array.dtype} {list(array.shape)}"
