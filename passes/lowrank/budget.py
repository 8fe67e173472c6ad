"""One choice for each layer under a budget: the multiple-choice knapsack.

The convex hull of each layer's (cost, loss) points gives steps of falling worth; taking them in
the order of loss per cost saved solves the linear relaxation (Sinha and Zoltners 1979, section 2),
which bounds what any choice can reach. What the last step saved too much is then spent greedily.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Option:
    """One thing that could be done to a layer."""

    cost: float
    loss: float


@dataclass(frozen=True)
class Plan:
    """The option taken for each layer. No choice within the budget has a loss below `bound`."""

    chosen: tuple[int, ...]
    cost: float
    loss: float
    bound: float


def least_cost(layers: Sequence[Sequence[Option]]) -> float:
    """The cost below which no budget can be met."""
    return sum(min(option.cost for option in options) for options in layers)


def choose(layers: Sequence[Sequence[Option]], budget: float) -> Plan | None:
    """The options of least total loss whose total cost is within the budget, nearly; None where
    even the cheapest are not. Ties go to the earlier option. Cost: n log n in all options."""
    if least_cost(layers) > budget:
        return None
    hulls = [hull(options) for options in layers]
    chosen = [path[0] for path in hulls]
    bound = sum(layers[i][at].loss for i, at in enumerate(chosen))
    for i, source, to in _steps(layers, hulls):
        excess = _cost(layers, chosen) - budget
        if excess <= 0:
            break
        before, after = layers[i][source], layers[i][to]
        saved, lost = before.cost - after.cost, after.loss - before.loss
        bound += lost * min(1.0, excess / saved)
        chosen[i] = to
    _spend(layers, chosen, budget)
    loss = sum(layers[i][at].loss for i, at in enumerate(chosen))
    return Plan(tuple(chosen), _cost(layers, chosen), loss, min(bound, loss))


def hull(options: Sequence[Option]) -> list[int]:
    """Indices from the least loss to the least cost along the lower convex hull."""
    order = sorted(range(len(options)), key=lambda i: (options[i].loss, options[i].cost, i))
    path: list[int] = []
    for i in order:
        if path and options[i].cost >= options[path[-1]].cost:
            continue
        while len(path) > 1 and _above(options[path[-2]], options[path[-1]], options[i]):
            path.pop()
        path.append(i)
    return path


def _above(a: Option, middle: Option, b: Option) -> bool:
    """Whether the middle one lies on or above the line from a to b."""
    return (middle.loss - a.loss) * (a.cost - b.cost) >= (b.loss - a.loss) * (a.cost - middle.cost)


def _steps(
    layers: Sequence[Sequence[Option]], hulls: Sequence[Sequence[int]]
) -> list[tuple[int, int, int]]:
    """(layer, from, to), the least loss per cost saved first; a layer's own stay in order."""
    steps: list[tuple[float, int, int, int]] = []
    for i, path in enumerate(hulls):
        slope = 0.0  # rises along a hull, but for rounding
        for source, to in pairwise(path):
            a, b = layers[i][source], layers[i][to]
            slope = max(slope, (b.loss - a.loss) / (a.cost - b.cost))
            steps.append((slope, i, source, to))
    return [step[1:] for step in sorted(steps, key=lambda step: step[0])]


def _cost(layers: Sequence[Sequence[Option]], chosen: Sequence[int]) -> float:
    return sum(layers[i][at].cost for i, at in enumerate(chosen))


def _spend(layers: Sequence[Sequence[Option]], chosen: list[int], budget: float) -> None:
    """Use what is left of the budget: the greatest gain first; each round lowers the loss."""
    while True:
        slack = budget - _cost(layers, chosen)
        best: tuple[float, int, int] | None = None
        for i, options in enumerate(layers):
            now = options[chosen[i]]
            for at, option in enumerate(options):
                gain = now.loss - option.loss
                if (
                    gain > 0
                    and option.cost - now.cost <= slack
                    and (best is None or gain > best[0])
                ):
                    best = (gain, i, at)
        if best is None:
            return
        chosen[best[1]] = best[2]
