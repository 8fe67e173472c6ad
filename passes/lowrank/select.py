"""Which choice is taken for each group of layers: within a budget, or by the error allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxslim.errors import OptionError, rounded_up
from onnxslim.passes.lowrank.budget import Option, choose, least_cost
from onnxslim.passes.lowrank.candidates import Candidate, Unit
from onnxslim.passes.lowrank.emit import Pair
from onnxslim.passes.lowrank.survey import Site
from onnxslim.passes.lowrank.units import Choice

OPTIONS = {"macs": "ratio", "params": "params", "ms": "latency"}
"""What a budget counts -> the option that sets it."""

COUNTED = {"macs": "the MACs", "params": "the parameters", "ms": "the milliseconds"}
"""In words."""


@dataclass(frozen=True)
class Decision:
    """Layers that read the same, some of which are to be cut: `pairs` has None for the others."""

    sites: tuple[Site, ...]
    choice: Choice
    pairs: tuple[Pair | None, ...]


@dataclass(frozen=True)
class Goal:
    """What is wanted: a share of the whole model's cost, or the relative error of a layer.

    With both, `error` (a ratio of norms) bounds what the budget may choose from.
    """

    unit: Unit
    share: float | None
    error: float | None
    total: float  # of the model before, in the unit

    def allows(self, choice: Choice) -> bool:
        """Whether all layers are within the error; as they are they always are."""
        if self.error is None:
            return True
        return all(p.cut is None or p.loss <= self.error**2 for p in choice.parts)

    def allowed(self, options: Sequence[Candidate]) -> list[Candidate]:
        """The candidates within the error."""
        return [o for o in options if self.allows(Choice((o,)))]


@dataclass(frozen=True)
class Picked:
    """The index of the choice for each group, its loss, and a loss that none within the budget is
    below."""

    chosen: tuple[int, ...]
    loss: float
    bound: float


def pick(
    options: Sequence[Sequence[Choice]],
    weights: Sequence[Sequence[float]],
    goal: Goal,
    strict: bool,
) -> Picked:
    """One choice for each group; the first of each leaves its layers as they are.

    By `share`, the least sum of weight x relative loss whose cost is within the budget; by `error`
    alone, the least cost of each group. If no choice meets the budget: an error when `strict`,
    else the least cost there is.

    Raises:
        OptionError: the budget cannot be met; says the least share that can.
    """
    rows = [
        [Option(choice.cost(goal.unit), choice.loss(w)) for choice in group]
        for group, w in zip(options, weights, strict=True)
    ]
    if goal.share is not None:
        fixed = goal.total - sum(row[0].cost for row in rows)
        plan = choose(rows, goal.share * goal.total - fixed)
        if plan is not None:
            return Picked(plan.chosen, plan.loss, plan.bound)
        if strict:
            raise OptionError(unmet(goal, (least_cost(rows) + fixed) / max(goal.total, 1e-9)))
    chosen = tuple(min(range(len(row)), key=lambda i: (row[i].cost, i)) for row in rows)
    loss = sum(row[at].loss for row, at in zip(rows, chosen, strict=True))
    return Picked(chosen, loss, loss)


def unmet(goal: Goal, nearest: float) -> str:
    """The sentence, with the least share that can be had."""
    name = OPTIONS[goal.unit]
    if float(rounded_up(nearest)) >= 1:
        return (
            f"lowrank: {name}={goal.share:g} of {COUNTED[goal.unit]} cannot be met: no layer costs "
            f"less in two; without {name} the report says why of each, and measure=false counts "
            "the multiplications alone"
        )
    return (
        f"lowrank: {name}={goal.share:g} of {COUNTED[goal.unit]} cannot be met: the layers that "
        f"can be factorized leave at least {nearest:.3f}; give {name}={rounded_up(nearest)} or more"
    )
