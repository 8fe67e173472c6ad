"""The choice for the whole model: made, measured, and made anew without what turned out slow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear
from onnxslim.errors import OptionError
from onnxslim.ir import Editor, Model, Node
from onnxslim.passes.lowrank.candidates import Candidate, pair
from onnxslim.passes.lowrank.clocked import NEAR, Attempt, corrected
from onnxslim.passes.lowrank.emit import Pair, emit_together
from onnxslim.passes.lowrank.gather import Evidence, Members, each
from onnxslim.passes.lowrank.select import COUNTED, OPTIONS, Decision, Goal, pick, unmet
from onnxslim.passes.lowrank.survey import Site
from onnxslim.passes.lowrank.tables import Table
from onnxslim.passes.lowrank.timing import Clock, Speed, turns
from onnxslim.passes.lowrank.units import Choice, joint_pairs
from onnxslim.pipeline.base import Context, Declined

_ROUNDS = 4  # of choosing anew without the pairs that turned out slow


@dataclass
class Settled:
    """What is to be done. `left` is what the model then costs over what it cost, by unit; `gap`
    is how far its weighted loss may be above the least that the budget allows, relative; losses are
    weighted by the gains of layers to this `power`."""

    decisions: list[Decision] = field(default_factory=list[Decision])
    tables: list[tuple[Table, Candidate]] = field(default_factory=list[tuple[Table, Candidate]])
    speeds: dict[str, Speed] = field(default_factory=dict[str, Speed])
    left: dict[str, float] = field(default_factory=dict[str, float])
    gap: float = 0.0
    power: float = 1.0
    notes: list[str] = field(default_factory=list[str])


@dataclass
class Settling:
    """One choice on its way."""

    known: Evidence
    options: list[list[Choice]]
    goal: Goal
    ctx: Context
    clock: Clock
    strict: bool  # whether a budget that cannot be met is an error
    measure: bool
    _made: dict[tuple[int, int], Decision] = field(default_factory=dict[tuple[int, int], Decision])

    def settle(self, model: Model) -> Settled:
        """Choose, measure, choose anew.

        Raises:
            OptionError: no choice meets the budget, and that is to be an error.
        """
        if self.goal.unit == "ms" and self.goal.share is not None:
            found = self._by_the_clock(model, self.goal.share)
        else:
            found = self._rounds(self.goal, self.strict)
        found.left |= self._left(found)
        self._unmet(found)
        return found

    def _rounds(self, goal: Goal, strict: bool) -> Settled:
        found = Settled()
        weights = [self.known.gains(unit) for unit in self.known.units]
        weights += [[1.0]] * len(self.known.tables)  # whose losses are weighted already
        for _ in range(_ROUNDS):
            picked = pick(self.options, weights, goal, strict)
            found.gap = (picked.loss - picked.bound) / max(picked.loss, 1e-30)
            taken = [
                (n, self.options[n][at])
                for n, at in enumerate(picked.chosen)
                if not self.options[n][at].whole
            ]
            first = len(self.known.units)
            found.tables = [
                (self.known.tables[n - first], choice.parts[0]) for n, choice in taken if n >= first
            ]
            taken = [item for item in taken if item[0] < first]
            fresh = [item for item in taken if (item[0], id(item[1])) not in self._made]
            found_now = each(
                self.ctx, "making pairs",
                lambda item: _decide(self.known, self.known.units[item[0]], item[1]), fresh,
            )  # fmt: skip
            for (n, choice), decision in zip(fresh, found_now, strict=True):
                self._made[n, id(choice)] = decision
            made = [self._made[n, id(choice)] for n, choice in taken]
            slow = self._slow(made, found)
            found.decisions = [d for n, d in enumerate(made) if n not in slow]
            if not slow:
                break
            strict = False  # what the clock forbids is no fault of the budget
            for number in slow:
                n, choice = taken[number]
                least = choice.cost(goal.unit)
                self.options[n] = [
                    o for o in self.options[n] if o.whole or o.cost(goal.unit) < least
                ]
        return found

    def _slow(self, made: Sequence[Decision], found: Settled) -> set[int]:
        """The decisions of which a pair is not faster, by the clock."""
        slow: set[int] = set()
        for number, decision in enumerate(made if self.measure else ()):
            self.ctx.env.progress("measuring pairs", number, len(made))
            for sites, pairs in together(decision):
                speed = self.clock.speed(sites, pairs)
                if speed is None:
                    continue
                found.speeds |= {site.name: speed for site in sites}
                if not speed.faster and self.goal.unit != "params":
                    slow.add(number)
        return slow

    def _by_the_clock(self, model: Model, wanted: float) -> Settled:
        """Chosen anew by what the whole model took with the last choice.

        Raises:
            OptionError: the fastest choice there is takes longer, and that is to be an error.
        """

        def attempt(share: float) -> Attempt[Settled]:
            found = self._rounds(replace(self.goal, share=share), strict=False)
            found.left["ms"] = self._took(model, found)
            return Attempt(found, self._expected(found), found.left["ms"])

        best = corrected(wanted, attempt)
        if best.took > wanted + NEAR:
            if self.strict:
                raise OptionError(unmet(self.goal, best.took))
            said = f"latency={wanted:g} was not met: a run took {best.took:.3f} of before"
            best.choice.notes.append(said)
        return best.choice

    def _took(self, model: Model, found: Settled) -> float:
        """The time of a run with these pairs over that without, measured."""
        copy = ir.snapshot(model)
        emit_into(copy, found.decisions)
        return turns([model, copy], self.ctx.env).ratio()

    def _expected(self, found: Settled) -> float:
        """The same by the times of the layers alone."""
        whole = {site.name: self.known.times.get((n,)) for n, site in enumerate(self.known.sites)}
        saved = 0.0
        for decision in found.decisions:
            alone = [whole[site.name] for site in decision.sites]
            saved += sum(times.layer_ms for times in alone if times is not None)
            saved -= decision.choice.cost("ms")
        return 1 - saved / max(self.goal.total, 1e-9)

    def _left(self, found: Settled) -> Mapping[str, float]:
        saved = {"macs": 0.0, "params": 0.0}
        for decision in found.decisions:
            for site, part in zip(decision.sites, decision.choice.parts, strict=True):
                saved["macs"] += site.shape.macs - part.macs
                saved["params"] += site.shape.params - part.params
        for table, part in found.tables:
            whole = table.candidates((1.0, 1.0))[0]
            saved["macs"] += whole.macs - part.macs
            saved["params"] += whole.params - part.params
        return {unit: 1 - n / max(self.known.totals[unit], 1) for unit, n in saved.items()}

    def _unmet(self, found: Settled) -> None:
        goal = self.goal
        if goal.share is None or goal.unit == "ms" or found.left[goal.unit] <= goal.share + 1e-9:
            return
        found.notes.append(
            f"{OPTIONS[goal.unit]}={goal.share:g} was not met: {found.left[goal.unit]:.3f} of "
            f"{COUNTED[goal.unit]} are left, the least that the allowed error and measured speed "
            "leave"
        )


def declined(known: Evidence, found: Settled, goal: Goal) -> list[Declined]:
    """A reason for every layer that stays."""
    cut = {
        site.name
        for decision in found.decisions
        for site, made in zip(decision.sites, decision.pairs, strict=True)
        if made is not None
    }
    return [
        Declined(site.name, _reason(found.speeds.get(site.name), goal))
        for site in known.sites
        if site.name not in cut
    ] + [
        Declined(table.name, "the budget is met without it")
        for table in known.tables
        if table.name not in {t.name for t, _ in found.tables}
    ]


def _reason(speed: Speed | None, goal: Goal) -> str:
    if speed is not None and not speed.faster:
        return (
            f"the pair is not faster: {speed.layer_ms:.3g} ms -> {speed.pair_ms:.3g} ms "
            "for the layer alone"
        )
    if goal.error is not None:
        return f"no rank that costs less has a relative error of at most {goal.error:g}"
    return "the budget is met without it, or no rank costs less"


def together(decision: Decision) -> list[tuple[list[Site], list[Pair]]]:
    """What is written and timed as one: the layers of a joint cut, every other pair by itself."""
    cut = [
        (site, made)
        for site, made in zip(decision.sites, decision.pairs, strict=True)
        if made is not None
    ]
    if decision.choice.joint is not None:
        return [([site for site, _ in cut], [made for _, made in cut])]
    return [([site], [made]) for site, made in cut]


def _decide(known: Evidence, unit: Members, choice: Choice) -> Decision:
    sites = tuple(known.members(unit))
    if choice.joint is not None:
        made = joint_pairs(sites, choice.joint, choice.parts[0].rank)
        narrow = [_narrow(site, each) for site, each in zip(sites, made, strict=True)]
        return Decision(sites, choice, tuple(narrow))
    pairs = tuple(
        None if part.cut is None else _narrow(site, pair(site, part.cut, part.rank))
        for site, part in zip(sites, choice.parts, strict=True)
    )
    return Decision(sites, choice, pairs)


def _narrow(site: Site, made: Pair) -> Pair:
    """With factors as wide as the layer's weight: those of all layers are kept until they are
    written."""
    dtype = site.layer.matrix().dtype
    return replace(made, first=made.first.astype(dtype), second=made.second.astype(dtype))


def emit_into(copy: Model, decisions: Sequence[Decision]) -> None:
    """The pairs into another copy of the model."""
    editor = Editor(copy)
    for decision in decisions:
        for sites, pairs in together(decision):
            twins = [twin_of(copy, site.layer) for site in sites]
            layers = [twin for twin in twins if twin is not None]
            if len(layers) == len(sites):
                emit_together(editor, layers, [site.shape for site in sites], pairs)
    editor.remove_dead()


def twin_of(model: Model, layer: Linear) -> Linear | None:
    """The layer of another model that makes the value of the same name."""
    wanted = layer.node.outputs[0].name
    node = next((n for n in ir.nodes(model) if _makes(n, wanted)), None)
    found = None if node is None else linear(node)
    return found if isinstance(found, Linear) else None


def _makes(node: Node, name: str | None) -> bool:
    return any(value.name == name for value in node.outputs)
