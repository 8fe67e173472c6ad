"""Which layers are cut, how and at which rank: under a budget of MACs, or by the error allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxslim.errors import OptionError
from onnxslim.passes.lowrank.budget import Option, choose, least_cost
from onnxslim.passes.lowrank.candidates import Candidate
from onnxslim.passes.lowrank.emit import Pair
from onnxslim.passes.lowrank.survey import Site


@dataclass(frozen=True)
class Decision:
    """A layer that is to be cut."""

    site: Site
    candidate: Candidate
    pair: Pair


@dataclass(frozen=True)
class Goal:
    """What is wanted: MACs left over MACs of the whole model, or the relative error of a layer.

    With both, `error` (a ratio of norms) bounds what the budget may choose from.
    """

    ratio: float | None
    error: float | None
    total_macs: int  # of the model before

    def allowed(self, options: Sequence[Candidate]) -> list[Candidate]:
        """The candidates within the error; the layer as it is always is."""
        if self.error is None:
            return list(options)
        return [o for o in options if o.cut is None or o.loss <= self.error**2]


def pick(
    options: Sequence[Sequence[Candidate]], weights: Sequence[float], goal: Goal, strict: bool
) -> list[int]:
    """The index of the candidate taken for each layer.

    By `ratio`, the least sum of weight x relative loss whose MACs are within the budget; by
    `error` alone, the fewest MACs of each layer. If no choice meets the budget: an error when
    `strict`, else the least MACs there are.

    Raises:
        OptionError: the budget cannot be met; says the least ratio that can.
    """
    if goal.ratio is None:
        return [min(range(len(o)), key=lambda i: (o[i].macs, i)) for o in options]
    rows = [
        [Option(c.macs, weight * c.loss) for c in layer]
        for layer, weight in zip(options, weights, strict=True)
    ]
    fixed = goal.total_macs - sum(layer[0].macs for layer in options)
    plan = choose(rows, goal.ratio * goal.total_macs - fixed)
    if plan is not None:
        return list(plan.chosen)
    nearest = (least_cost(rows) + fixed) / max(goal.total_macs, 1)
    if strict:
        raise OptionError(
            f"lowrank: ratio={goal.ratio:g} of the MACs cannot be met: the layers that can be "
            f"factorized leave at least {nearest:.3f}; give ratio={_up(nearest)} or more"
        )
    return [min(range(len(o)), key=lambda i: (o[i].macs, i)) for o in options]


def reached(options: Sequence[Sequence[Candidate]], chosen: Sequence[int], total: int) -> float:
    """The MACs of the whole model after over before."""
    saved = sum(layer[0].macs - layer[at].macs for layer, at in zip(options, chosen, strict=True))
    return 1 - saved / max(total, 1)


def _up(value: float) -> str:
    """Rounded up to three digits, so that it can be met."""
    return f"{-(-value * 1000 // 1) / 1000:.3f}"
