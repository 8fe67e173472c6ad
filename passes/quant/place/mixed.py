"""Which precision each operator gets: the least time within a budget of noise, or the reverse.

A multiple-choice knapsack, in which a tensor between operators of different precision has a cost
of its own. With y_ic = 1 where operator i takes choice c, q_b = 1 where tensor b is quantized and
d_b = 1 where it is dequantized:

    min  sum_ic ms_ic y_ic + sum_b (quantize_b q_b + dequantize_b d_b)
    s.t. sum_c y_ic = 1,  sum_ic noise_ic y_ic <= noise,  sum_ic size_ic y_ic <= size
         q_b >= reads_r - writes_m,  d_b >= writes_m - reads_r   for maker m and each reader r of b
         reads_n <= sum of reads_o over the others o that operator n needs one of

after Yao et al., HAWQ-V3 (2021), section 3.4, whose operators have no borders. The q and d need
not be declared as integers: whatever the y are, their least values are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING

import numpy as np

from onnxslim.passes.quant.place.mixed_greedy import descend
from onnxslim.passes.quant.place.mixed_problem import Limits, Problem

if TYPE_CHECKING:
    from scipy.optimize import LinearConstraint

SECONDS = 10.0
"""For one solution; what is best by then is taken, and its gap is known."""

NODES = 5000
"""Of branch and bound, so that the answer depends on the time it takes as rarely as possible."""

LARGEST = 3000
"""Operators for which the exact method is tried."""


@dataclass(frozen=True)
class Solution:
    """The choice of each operator. No other within the limits costs less than `bound`."""

    chosen: tuple[int, ...]
    ms: float
    noise: float
    bound: float  # of ms, or of noise where that was to be least

    @property
    def gap(self) -> float:
        """How much of the time could be saved at most, as a share of it; 0 where it is optimal."""
        return max(0.0, 1 - self.bound / self.ms) if self.ms > 0 else 0.0


def least_time(problem: Problem, noise: float = inf, size: float = inf) -> Solution | None:
    """The fastest choices within the limits; None where none are.

    Optimal to 1e-4 for up to `LARGEST` operators within `SECONDS`, else greedy by noise per time,
    with its gap.
    """
    return _solve(problem, Limits(noise, size, inf))


def least_noise(problem: Problem, ms: float = inf, size: float = inf) -> Solution | None:
    """The choices with the least noise within the limits; None where none are."""
    return _solve(problem, Limits(inf, size, ms), quiet=True)


def _solve(problem: Problem, limits: Limits, quiet: bool = False) -> Solution | None:
    if not problem.operators:
        return Solution((), 0.0, 0.0, 0.0)
    found = _Program(problem, limits, quiet).solved() if len(problem) <= LARGEST else _UNSOLVED
    if found.infeasible:
        return None
    chosen = found.chosen
    if chosen is None or not limits.hold(problem, chosen):
        chosen = descend(problem, limits, quiet)
    if chosen is None:
        return None
    return Solution(chosen, problem.ms(chosen), problem.noise(chosen), found.bound)


@dataclass(frozen=True)
class _Found:
    chosen: tuple[int, ...] | None = None
    bound: float = 0.0
    infeasible: bool = False


_UNSOLVED = _Found()


class _Program:
    """The problem as `scipy.optimize.milp` takes it: y, then a q and a d for each border."""

    def __init__(self, problem: Problem, limits: Limits, quiet: bool) -> None:
        self.problem, self.quiet = problem, quiet
        self.starts: list[int] = []
        self.costs: list[float] = []
        self.rows: list[tuple[list[tuple[int, float]], float, float]] = []
        for choices in problem.operators:
            self.starts.append(len(self.costs))
            self.costs += [choice.noise if quiet else choice.ms for choice in choices]
        self.integral = len(self.costs)
        for border in problem.borders:
            prices = (border.quantize_ms, border.dequantize_ms)
            self.costs += [0.0, 0.0] if quiet else prices
        self._choose_one()
        self._limit(limits)
        self._borders()
        self._needs()

    def solved(self) -> _Found:
        """The answer of the solver, as far as it has one."""
        from scipy.optimize import Bounds, milp

        count, scale = len(self.costs), max(map(abs, self.costs)) or 1.0
        kinds = np.zeros(count, np.int64)
        kinds[: self.integral] = 1
        result = milp(
            np.asarray(self.costs) / scale,
            integrality=kinds,
            bounds=Bounds(0, 1),
            constraints=self._constraints(),
            options={"time_limit": SECONDS, "node_limit": NODES, "mip_rel_gap": 1e-4},
        )
        if result.status == 2:
            return _Found(infeasible=True)
        bound = result.mip_dual_bound
        least = 0.0 if bound is None or not isfinite(bound) else float(bound) * scale
        return _Found(None if result.x is None else self._read(result.x.tolist()), least)

    def _read(self, x: Sequence[float]) -> tuple[int, ...]:
        ends = [*self.starts[1:], self.integral]
        spans = zip(self.starts, ends, strict=True)
        return tuple(max(range(a, b), key=x.__getitem__) - a for a, b in spans)

    def _choose_one(self) -> None:
        for start, choices in zip(self.starts, self.problem.operators, strict=True):
            row = [(start + i, 1.0) for i in range(len(choices))]
            self.rows.append((row, 1.0, 1.0))

    def _limit(self, limits: Limits) -> None:
        """One row per limit, as a share of it."""
        noise, size, ms = (
            [value for choices in self.problem.operators for value in map(what, choices)]
            for what in (lambda c: c.noise, lambda c: c.size, lambda c: c.ms)
        )
        for border in self.problem.borders:
            ms += [border.quantize_ms, border.dequantize_ms]
        for values, most in ((noise, limits.noise), (size, limits.size), (ms, limits.ms)):
            if isfinite(most):
                scale = most if most > 0 else 1.0
                row = [(i, value / scale) for i, value in enumerate(values) if value]
                self.rows.append((row, -inf, most / scale))

    def _borders(self) -> None:
        for index, border in enumerate(self.problem.borders):
            q = self.integral + 2 * index
            made = [] if border.maker is None else self._flags(border.maker, "writes")
            for reader in border.readers:
                read = self._flags(reader, "reads")
                difference = [*read, *((i, -v) for i, v in made)]
                self.rows.append(([*difference, (q, -1.0)], -inf, 0.0))
                self.rows.append(([*((i, -v) for i, v in difference), (q + 1, -1.0)], -inf, 0.0))
            if border.also_float:
                self.rows.append(([*made, (q + 1, -1.0)], -inf, 0.0))

    def _needs(self) -> None:
        for need in self.problem.needs:
            others = [(i, -v) for o in need.others for i, v in self._flags(o, "reads")]
            self.rows.append(([*self._flags(need.operator, "reads"), *others], -inf, 0.0))

    def _flags(self, operator: int, what: str) -> list[tuple[int, float]]:
        choices, start = self.problem.operators[operator], self.starts[operator]
        return [
            (start + i, 1.0)
            for i, choice in enumerate(choices)
            if (choice.reads if what == "reads" else choice.writes)
        ]

    def _constraints(self) -> LinearConstraint:
        from scipy.optimize import LinearConstraint
        from scipy.sparse import csr_array

        entries = [(r, c, v) for r, (row, _, _) in enumerate(self.rows) for c, v in row]
        rows, columns, values = map(np.asarray, zip(*entries, strict=True))
        shape = len(self.rows), len(self.costs)
        _, low, high = zip(*self.rows, strict=True)
        return LinearConstraint(csr_array((values, (rows, columns)), shape=shape), low, high)
