"""What goes: groups are ranked, their losses weighed, and a budget is spread over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes import Axes, AxisMap, Group
from onnxslim.analyses.axes.groups import CHANNELS, CONV_GROUPS, HEADS, HIDDEN, QK, VO
from onnxslim.analyses.axes.site import STATISTIC
from onnxslim.analyses.cost import Cost
from onnxslim.analyses.shapes import Shapes
from onnxslim.errors import OptionError, rounded_up
from onnxslim.ir import Array, Model
from onnxslim.passes.prune.amount import Amounts, macs, milliseconds, parameters
from onnxslim.passes.prune.budget import Choice, by_share, removal, steps, within
from onnxslim.passes.prune.effort import REFIT, REFITS, affordable
from onnxslim.passes.prune.evidence import ROWS_PER_FEATURE, Evidence, collect
from onnxslim.passes.prune.importance import Importance, rank, readers, taps
from onnxslim.passes.prune.timed import measure
from onnxslim.passes.prune.trial import Trials, gains, together
from onnxslim.pipeline.base import Context
from onnxslim.runtime.blas import longest_first, side_by_side
from onnxslim.targets import Target

Kind = Literal["channels", "hidden", "heads", "groups", "qk", "vo"]
KINDS: Mapping[str, str] = {
    "channels": CHANNELS,
    "hidden": HIDDEN,
    "heads": HEADS,
    "groups": CONV_GROUPS,
    "qk": QK,
    "vo": VO,
}
GOALS = ("ratio", "params", "latency", "share")
_COUNTED = {"ratio": "the MACs", "params": "the parameters", "latency": "the measured latency"}
_TRIES = 4  # of budgets in milliseconds, each set by what the one before turned out to be
_NEAR = 0.02  # of the time before: closer is not worth another try


@dataclass(frozen=True)
class Rules:
    """What a user says about the choice."""

    goal: str  # one of GOALS
    value: float  # share that stays; of `share`, that goes
    asked: bool = True  # by the user; else half of what can go does, where the value cannot be had
    only: tuple[Kind, ...] = ()
    skip: tuple[str, ...] = ()
    importance: Importance = "loss"
    repaired: bool = True
    multiple: int = 0
    floor: float = 0.2
    width: bool = False


@dataclass
class Chosen:
    """What goes from the model that `axes` was made from, and what that leaves."""

    axes: AxisMap
    evidence: Evidence
    choices: list[Choice]
    taken: list[int]
    left: float = 1.0  # of the goal's currency; of MACs where that is a share
    macs_left: float = 1.0
    notes: list[str] = field(default_factory=list[str])

    @property
    def removed(self) -> Array:
        """Flags of the classes that go."""
        return removal(self.axes, self.choices, self.taken)


class Chooser:
    """One choice for a model; `sizes` are those that groups had before earlier steps."""

    def __init__(self, rules: Rules, model: Model, ctx: Context, sizes: dict[str, int]) -> None:
        self.rules, self.model, self.ctx, self.sizes = rules, model, ctx, sizes
        self.first = not sizes
        self.axes: AxisMap = ctx.analyses.get(Axes(width=rules.width))
        self.notes: list[str] = []
        self.trials: Trials | None = None

    def choose(self, base: Model) -> Chosen:
        """Decide. `base` is the model that a latency is a share of.

        Raises:
            OptionError: nothing can be pruned, or the budget cannot be met; says why, or the
                nearest.
            RuntimeUnavailable: there are calibration samples and the model cannot be run.
        """
        groups = [group for group in self.axes.groups if self._wanted(group)]
        if not groups:
            raise OptionError(self._nothing())
        _require_numbers(groups)
        for group in groups:
            self.sizes.setdefault(group.name, group.size)
        self.evidence = self._measure(groups)
        self.choices = longest_first(self.ctx.env.executor, self._choice, groups, self._work)
        for choice in self.choices:
            for name, share in choice.ranking.shares.items():
                self.evidence.shares.setdefault(name, share)
        counted = macs(self.axes, self.ctx.analyses.get(Cost()).counts)
        if self.rules.goal == "share":
            taken, left = by_share(self.choices, self.rules.value), None
        else:
            self._weigh(counted.total(self.axes.nothing()))
            amounts = self._amounts(counted)
            taken, left = (
                self._by_latency(amounts, base) if self.rules.goal == "latency"
                else self._by_amount(amounts)
            )  # fmt: skip
        removed = removal(self.axes, self.choices, taken)
        if not removed.any() and self.first:
            raise OptionError("prune: every group is too small for its multiple or floor to shrink")
        whole = counted.total(self.axes.nothing())
        macs_left = counted.total(removed) / max(whole, 1)
        left = macs_left if left is None else left
        return Chosen(self.axes, self.evidence, self.choices, taken, left, macs_left, self.notes)

    def _amounts(self, counted: Amounts) -> Amounts:
        if self.rules.goal == "params":
            return parameters(self.axes, self.model)
        if self.rules.goal == "latency":
            return milliseconds(self.axes, self.model, self.ctx.env)
        return counted

    def _weigh(self, whole: float) -> None:
        """Give each group what its loss means for the outputs of the model."""
        if not self.evidence.fit:
            return
        own = [choice.ranking.group for choice in self.choices]
        self.trials = Trials(
            self.model, self.axes, self.evidence, self.ctx.env, self.rules.repaired,
            whole * len(together(own)),
        )  # fmt: skip
        self._reweigh(gains(self.trials, self.choices))

    def _reweigh(self, found: Sequence[float]) -> None:
        self.choices = [replace(c, gain=g) for c, g in zip(self.choices, found, strict=True)]

    def _by_amount(self, amounts: Amounts) -> tuple[list[int], float]:
        total = amounts.total(self.axes.nothing())
        if total <= 0:
            raise OptionError(self._uncounted(amounts))
        budget = self.rules.value * total
        taken, left = within(self.axes, amounts, self.choices, budget)
        if left > budget * (1 + 1e-9):
            if self.rules.asked:
                raise self._unmet(left / total)
            budget = (total + left) / 2
            self.notes.append(
                f"prune: {self.rules.value:g} of the MACs cannot be had, as what can go leaves "
                f"{rounded_up(left / total)}; half of it went"
            )
            taken, left = within(self.axes, amounts, self.choices, budget)
        if self.trials is not None and self.trials.affords_more:
            taken, left = self._once_more(self.trials, amounts, budget, taken, left)
        return taken, left / total

    def _once_more(
        self, trials: Trials, amounts: Amounts, budget: float, taken: list[int], left: float
    ) -> tuple[list[int], float]:
        """The budget spread anew by losses that are tried at what the first choice takes, as they
        do not grow in proportion; the better of both by a trial of the whole cut."""
        first = self.choices
        self._reweigh(gains(trials, first, taken))
        other, less = within(self.axes, amounts, self.choices, budget)
        cuts = [removal(self.axes, first, at) for at in (taken, other)]
        before, after = side_by_side(self.ctx.env.executor, trials.error, cuts)
        if before is not None and after is not None and after < before:
            return other, less
        self.choices = first
        return taken, left

    def _by_latency(self, amounts: Amounts, base: Model) -> tuple[list[int], float]:
        """Times of kernels foretell what a cut saves; a measurement says it, and sets the next
        budget until what was asked for is met."""
        asked, budget = self.rules.value, self.rules.value
        total = amounts.total(self.axes.nothing())
        found: list[tuple[float, list[int]]] = []
        for _ in range(_TRIES):
            taken, left = within(self.axes, amounts, self.choices, budget * total)
            removed = removal(self.axes, self.choices, taken)
            timed = measure(self.model, removed, base, self.ctx.env, width=self.rules.width)
            ratio, foretold = timed.ratio(), left / total
            found.append((ratio, taken))
            if abs(ratio - asked) <= _NEAR or foretold > budget or ratio >= 1:
                break
            budget = 1 - (1 - asked) * (1 - foretold) / (1 - ratio)
            if not 0 < budget < 1:
                break
        near = [made for made in found if made[0] <= asked + _NEAR]
        if not near:
            raise self._unmet(min(ratio for ratio, _ in found))
        ratio, taken = max(near, key=lambda made: made[0])
        return taken, ratio

    def _unmet(self, left: float) -> OptionError:
        goal, nearest = self.rules.goal, rounded_up(left)
        return OptionError(
            f"prune: {goal}={self.rules.value:g} of {_COUNTED[goal]} cannot be met: what can go "
            f"leaves {nearest}; give {goal}={nearest} or more, or a lower floor"
        )

    def _wanted(self, group: Group) -> bool:
        only = {KINDS[kind] for kind in self.rules.only}
        named = any(
            fnmatchcase(ir.label(layer.node), pattern)
            for layer in group.rows
            for pattern in self.rules.skip
        )
        return not named and (not only or group.kind in only)

    def _nothing(self) -> str:
        stuck = self.axes.stuck[:3]
        if self.axes.groups or not stuck:
            kinds = ", ".join(sorted({group.kind for group in self.axes.groups})) or "no layers"
            return f"prune: nothing to prune with these options; the model has {kinds}"
        reasons = "; ".join(f"{s.node}: {s.reason}" for s in stuck)
        hint = "; width=true lets it go" if any(STATISTIC in s.reason for s in stuck) else ""
        return f"prune: nothing of the model can be pruned: {reasons}{hint}"

    def _uncounted(self, amounts: Amounts) -> str:
        why = self.ctx.analyses.get(Shapes()).reason or "the sizes of its tensors are not known"
        return (
            f"prune: the {amounts.currency} of the model cannot be counted ({why}); give params, a "
            "part of the parameters, instead"
        )

    def _measure(self, groups: Sequence[Group]) -> Evidence:
        if self.ctx.env.calib is None:
            self.notes.append(
                "prune saw no calibration samples: units are ranked by the norms of their weights "
                "and nothing is repaired; give --calib for both"
            )
            return Evidence({}, {})
        found = collect(self.model, taps(self.axes, groups), self.ctx.env, self._refits())
        self.notes += _few(found, len(self.ctx.env.calib))
        return found

    def _refits(self) -> int:
        """Samples for the refit, which runs two models up to 8 times."""
        return affordable(REFIT, 16.0 * self.ctx.analyses.get(Cost()).total_macs, *REFITS)

    def _work(self, group: Group) -> float:
        """What to rank a group is in proportion to: covariances are inverted."""
        return float(sum(own.in_features**3 for own, _ in readers(self.axes, group)))

    def _choice(self, group: Group) -> Choice:
        multiple, block = multiples(group, self.ctx.env.target)
        if self.rules.multiple:
            multiple, block = self.rules.multiple, 1
        floor = min(self.rules.floor * self.sizes[group.name] / group.size, 1.0)
        possible = steps(group.size, multiple, floor, block)
        ranking = rank(self.axes, group, self.evidence, self.rules.importance, possible[-1])
        return Choice(ranking, possible)


def multiples(group: Group, target: Target) -> tuple[int, int]:
    """The multiple that is to stay of a group, and the least of channels where a unit is one."""
    known = {CHANNELS: target.conv_multiple, HIDDEN: target.rank_multiple}
    single = group.kind == CHANNELS and len(group.units[0]) == 1
    return known.get(group.kind, 1), target.conv_block if single else 1


FEW_SAMPLES = 256
"""Calibration samples below which the user is told how little they say."""


def _few(found: Evidence, samples: int) -> list[str]:
    notes: list[str] = []
    if samples < FEW_SAMPLES:
        notes.append(
            f"prune saw {samples} calibration samples: what they do not excite "
            "goes first and may matter to others, and samples of the same origin do not show "
            f"that; give {FEW_SAMPLES} varied ones or more, and --eval of another origin"
        )
    short = [ROWS_PER_FEATURE * d - n for n, d in found.sizes() if ROWS_PER_FEATURE * d > n]
    if short:
        notes.append(
            f"{len(short)} layers saw few inputs for their features and were damped more; "
            f"{max(short)} more rows are needed"
        )
    return notes


def _require_numbers(groups: Sequence[Group]) -> None:
    """Raises OptionError where a weight that units are ranked by holds NaN or infinity."""
    layers = {layer.node: layer for group in groups for layer in (*group.rows, *group.columns)}
    for node, layer in layers.items():
        weight = ir.array(layer.weight)
        if weight is not None and not np.isfinite(weight).all():
            raise OptionError(
                f"prune: the weight of '{ir.label(node)}' holds NaN or infinity, so that units "
                "cannot be ranked; expected numbers: mend the weight first"
            )
