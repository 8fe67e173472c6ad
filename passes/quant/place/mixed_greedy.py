"""One change at a time: what is done where the exact method finds nothing in its time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnxslim.passes.quant.place.mixed_problem import Limits, Problem


@dataclass(frozen=True)
class _Sums:
    """Of all operators."""

    noise: float
    size: float
    ms: float


def descend(problem: Problem, limits: Limits, quiet: bool) -> tuple[int, ...] | None:
    """Choices within the limits, or None where none were found.

    From each operator's own best it takes the change that removes most excess per cost until the
    limits hold, then every change that saves something. At most as many changes as there are
    choices, each of them found among all.
    """
    walk = _Walk(problem, limits, quiet)
    changes = sum(map(len, problem.operators))
    for _ in range(changes):
        if walk.excess(walk.sums) == 0:
            break
        if not walk.mend():
            return None
    for _ in range(changes):
        if not walk.save():
            break
    walk.settle()
    return tuple(walk.chosen) if limits.hold(problem, walk.chosen) else None


class _Walk:
    """The choices as they are now, and their sums."""

    def __init__(self, problem: Problem, limits: Limits, quiet: bool) -> None:
        self.problem, self.limits, self.quiet = problem, limits, quiet
        costs = [[c.noise if quiet else c.ms for c in choices] for choices in problem.operators]
        self.chosen = [min(range(len(row)), key=row.__getitem__) for row in costs]
        now = self.chosen
        self.sums = _Sums(problem.noise(now), problem.size(now), problem.ms(now))

    def excess(self, sums: _Sums) -> float:
        """Over the limits, as shares of these."""
        return self.limits.excess(sums.noise, sums.size, sums.ms)

    def cost(self, sums: _Sums) -> float:
        """What is to be least."""
        return sums.noise if self.quiet else sums.ms

    def mend(self) -> bool:
        """The change that removes most excess per cost; whether there is one."""
        over, cost = self.excess(self.sums), self.cost(self.sums)
        found = [
            ((over - self.excess(sums)) / max(self.cost(sums) - cost, 1e-12), -operator, change)
            for operator, change, sums in self._moves()
            if self.excess(sums) < over
        ]
        return self._take(max(found, default=None))

    def save(self) -> bool:
        """The change within the limits that saves most; whether there is one."""
        cost = self.cost(self.sums)
        found = [
            (cost - self.cost(sums), -operator, change)
            for operator, change, sums in self._moves()
            if self.cost(sums) < cost * (1 - 1e-9) and self.excess(sums) == 0
        ]
        return self._take(max(found, default=None))

    def settle(self) -> None:
        """What lacks what it needs takes its best choice without integers, if it has one."""
        for _ in self.problem.operators:
            moves = 0
            for operator in self.problem.unmet(self.chosen):
                choices = self.problem.operators[operator]
                plain = [i for i, choice in enumerate(choices) if not choice.reads]
                if plain and choices[self.chosen[operator]].reads:
                    self.chosen[operator] = min(plain, key=[c.ms for c in choices].__getitem__)
                    moves += 1
            if not moves:
                return

    def _take(self, best: tuple[float, int, int] | None) -> bool:
        if best is None:
            return False
        operator, change = -best[1], best[2]
        self.sums = self._after(operator, change)
        self.chosen[operator] = change
        return True

    def _moves(self) -> Iterator[tuple[int, int, _Sums]]:
        for operator, choices in enumerate(self.problem.operators):
            for change in range(len(choices)):
                if change != self.chosen[operator]:
                    yield operator, change, self._after(operator, change)

    def _after(self, operator: int, change: int) -> _Sums:
        """The sums if one operator changed."""
        problem, was = self.problem, self.chosen[operator]
        old, new = problem.operators[operator][was], problem.operators[operator][change]
        ms = self.sums.ms + new.ms - old.ms
        ms -= self._borders(operator)
        self.chosen[operator] = change
        ms += self._borders(operator)
        self.chosen[operator] = was
        noise, size = self.sums.noise + new.noise - old.noise, self.sums.size + new.size - old.size
        return _Sums(noise, size, ms)

    def _borders(self, operator: int) -> float:
        around = self.problem.around[operator]
        return sum(self.problem.border_ms(border, self.chosen) for border in around)
