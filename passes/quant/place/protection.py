"""What stays in float, or keeps its input in float, so that the outputs are good enough: what costs
the least time.

The noise that each operator makes in the outputs when nothing else is int8 adds up, nearly; by how
much not is learnt from trials of the whole model, which also decide. Between a budget of noise
that was too large and one that was small enough, the next one is halfway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

from onnxslim import ir
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.search import Search, weight_sizes
from onnxslim.passes.quant.place.costs import Costs
from onnxslim.passes.quant.place.mixed import least_noise, least_time
from onnxslim.passes.quant.place.mixed_problem import Problem
from onnxslim.passes.quant.place.noise import input_noise, noise_of_codes, power
from onnxslim.passes.quant.place.placement import Placement
from onnxslim.passes.quant.place.precisions import ALONE, ALONE_4, NARROW
from onnxslim.passes.quant.place.stored import stored_bytes
from onnxslim.passes.quant.rewrite.apply import node_id, plan_for
from onnxslim.passes.quant.rewrite.plan import Plan

TRIALS = 8
"""Budgets of noise that are tried."""

NEAR_DB = 0.3
"""How far over the goal the outputs may be before a larger budget is tried."""

STEP_DB = 1.0
"""The gain in signal to noise that is worth leaving something in float for, at least."""

SLOWER = (1.03, 1.06, 1.1)
"""How much longer than what meets the goal it may take to come to the aim, in turn; the last also
where both models are timed."""

WORTH = 0.03
"""The part of the time that a decibel on the way to the aim is worth."""

DEAREST = 0.15
"""The part that all of them are, by the clock."""

FREE = 65536
"""So many numbers of weights (256 kB) may stay in float where the goal needs it, or the aim where
that takes little time, whatever share of all weights that is, as long as the model is still clearly
smaller and faster than in float."""

LESS = 0.9
"""Clearly: of the bytes of all weights in float, and of the time, at most."""

SMALLER = (4 * LESS - 1) / 3
"""The part of all weights that may stay in float then: the others take a byte instead of four."""

MOST_RETURNS = 24
"""Operators in float that are tried in int8 again, those first that cost most time."""


@dataclass(frozen=True)
class Limit:
    """What must be reached, what is wanted if it takes little time, and the part of all int8
    weights that may stay in float for it; of few weights more may, see `FREE`."""

    goal_db: float
    aim_db: float
    share: float

    @property
    def highest_db(self) -> float:
        """What needs nothing more."""
        return max(self.goal_db, self.aim_db)


def protected(
    search: Search, placement: Placement, choices: Choices, limit: Limit, alone: bool
) -> Choices:
    """The choices with as much in float as the goal takes, or as brings it nearer, and some more
    where that takes little time and brings the aim nearer.

    `alone`: weights alone are a choice too, as long as some layer is int8. Costs the trials of
    `Search.sensitivities` where the aim is missed, and some thirty more where the goal is, where
    the aim still is, and where there are few weights.
    """
    if search.score(choices) >= limit.highest_db:
        return choices
    plan = plan_for(search.model, search.target, search.facts, choices)
    case = _Case(search, placement, choices, weight_sizes(plan), alone)
    return _with_few(case, plan, limit, _by_the_clock(case, limit, case.within(limit)))


def _by_the_clock(case: _Case, limit: Limit, found: Choices) -> Choices:
    """What meets the aim, where costs took that for too dear and the clock does not: profiles tell
    them, which other work on the machine disturbs."""
    if not limit.goal_db <= case.search.score(found) < limit.highest_db or not case.is_timed:
        return found
    tried = case.within(replace(limit, goal_db=limit.highest_db))
    return tried if case.is_worth_it(tried, found) else found


def _with_few(case: _Case, plan: Plan, limit: Limit, found: Choices) -> Choices:
    """With as many of few weights in float as the goal needs, or the aim at little time."""
    few, db = min(FREE / max(sum(case.sizes.values()), 1), SMALLER), case.search.score(found)
    if db >= limit.highest_db or not 0 < limit.share < few:
        return found
    missed = db < limit.goal_db
    wanted = [limit.highest_db] if case.is_timed else []
    wanted += [limit.goal_db] if missed else []
    for goal_db in wanted:
        freer = case.within(replace(limit, share=few, goal_db=goal_db))
        for tried in (freer, with_shared(plan, freer)):
            fits = case.gains(tried, found) if missed else case.is_worth_it(tried, found)
            if fits and case.pays(tried):
                return tried
    return found


def with_shared(plan: Plan, choices: Choices) -> Choices:
    """The choices with every layer in float that shares its weight with one in float, so that the
    file does not have the weight twice."""
    keys = {node_id(node): id(ir.constant(x.layer.weight)) for node, x in plan.layers.items()}
    floats = {keys[name] for name in choices.excluded - choices.alone if name in keys}
    more = {name for name, key in keys.items() if key in floats}
    return replace(choices, excluded=choices.excluded | more)


@dataclass(frozen=True)
class _Case:
    """The choices that all starts from, and the sizes of their weights by layer."""

    search: Search
    placement: Placement
    choices: Choices
    sizes: Mapping[str, float]
    alone: bool

    @property
    def is_timed(self) -> bool:
        """Whether the target is here."""
        return self.search.target.here

    def within(self, limit: Limit) -> Choices:
        """What the limit takes, with its share of the weights."""
        search, placement, choices = self.search, self.placement, self.choices
        noise = input_noise(search, placement, choices)
        for price in (placement.with_alone, placement.costs)[not self.alone :]:
            costs = price(choices)
            rounding = noise_of_codes(search, placement, choices, costs)
            tried = Protection(search, costs, noise, self.sizes, limit.share, rounding)
            found = tried.protect(choices, limit.goal_db)
            found = tried.quieter(choices, found, limit.aim_db, placement.takes_at_most)
            if not found.alone or self.sizes.keys() - found.excluded:
                return found
        return choices

    def gains(self, tried: Choices, found: Choices) -> bool:
        """Whether it is a decibel and more."""
        return self.search.score(tried) > self.search.score(found) + STEP_DB

    def is_worth_it(self, tried: Choices, found: Choices) -> bool:
        """Whether it gains, and takes no more time than that is worth."""
        gain = self.search.score(tried) - self.search.score(found)
        times = 1 + min(WORTH * gain, DEAREST)
        return self.gains(tried, found) and self.placement.takes_at_most(tried, found, times)

    def pays(self, found: Choices) -> bool:
        """Whether what was found is still clearly smaller and faster than the model in float."""
        if stored_bytes(self.search, found) > LESS * ir.weight_bytes(self.search.model):
            return False
        in_float = replace(self.choices, excluded=self.choices.excluded | self.sizes.keys())
        return self.placement.takes_at_most(found, in_float, LESS)


class Protection:
    """The choice for one plan: `noise` and `sizes` (of weights) by operator, and the noise that
    `rounding` weights to 4 bits adds, where that is a choice."""

    def __init__(
        self,
        search: Search,
        costs: Costs,
        noise: Mapping[str, float],
        sizes: Mapping[str, float],
        share: float,
        rounding: Mapping[str, float] | None = None,
    ) -> None:
        self.search, self.costs = search, costs
        self.problem: Problem = costs.with_noise(noise, sizes, rounding)
        self.most = share * sum(sizes.values())

    def quieter(
        self,
        choices: Choices,
        found: Choices,
        aim_db: float,
        takes_at_most: Callable[[Choices, Choices, float], bool],
    ) -> Choices:
        """The least noise in little more time than what was found takes, while the aim is missed
        and what is gained is worth the time. `choices` are those that all of this starts from;
        `takes_at_most` says whether some take at most so many times as long as others."""
        spent, best, score = self._ms(found), found, self.search.score
        for slower in SLOWER:
            if score(best) >= aim_db:
                break
            quiet = least_noise(self.problem, spent * slower, self.most)
            tried = best if quiet is None else applied(self.costs, choices, quiet.chosen)
            least = max(score(best), score(found) + (slower - 1) / WORTH)
            if score(tried) > least and takes_at_most(tried, found, SLOWER[-1]):
                best = tried
        return best

    def protect(self, choices: Choices, goal_db: float) -> Choices:
        """The least time for the goal; where it is out of reach, what comes close to the best."""
        if self.search.score(choices) >= goal_db:
            return choices
        best = least_noise(self.problem, size=self.most)
        if best is None:
            return choices
        quietest = applied(self.costs, choices, best.chosen)
        reachable = min(goal_db, self.search.score(quietest) - NEAR_DB)
        if reachable < self.search.score(choices) + min(STEP_DB, goal_db - reachable):
            return self._better(choices, quietest)
        found = self._bisected(choices, reachable)
        return self._returned(choices, quietest if found is None else found, reachable)

    def _better(self, choices: Choices, quietest: Choices) -> Choices:
        gain = self.search.score(quietest) - self.search.score(choices)
        return quietest if gain > STEP_DB else choices

    def _bisected(self, choices: Choices, goal_db: float) -> Choices | None:
        """The fastest choices found that meet the goal."""
        wanted, score = power(goal_db), self.search.score
        every = self.problem.noise(self.costs.chosen(()))
        budget = every * wanted / power(score(choices))  # as if noise added up
        enough, best, too_much = 0.0, None, every
        for _ in range(TRIALS):
            solution = least_time(self.problem, budget, self.most)
            if solution is None:
                enough = max(enough, budget)
                budget = sqrt(enough * too_much)
                continue
            tried = applied(self.costs, choices, solution.chosen)
            db = score(tried)
            if db >= goal_db:
                best, enough = tried, max(enough, budget)
                if db < goal_db + NEAR_DB:
                    break
                budget = sqrt(enough * too_much)
            else:
                too_much = min(too_much, budget)
                lower = budget * wanted / power(db)
                budget = sqrt(enough * too_much) if enough else lower * 0.9
            if too_much < enough * 1.02:
                break
        return best

    def _returned(self, choices: Choices, found: Choices, goal_db: float) -> Choices:
        """Without what the goal does not need, the dearest first; not what would be slower then."""
        best, enough = found, min(goal_db, self.search.score(found))
        own = found.excluded - choices.excluded  # in float, or the weight alone
        ordered = sorted(
            (n for n in self.costs.names if n in own), key=lambda n: -self._saved(n, best)
        )
        for name in ordered[:MOST_RETURNS]:
            tried = without(best, name)
            if self._saved(name, best) >= 0 and self.search.score(tried) >= enough:
                best = tried
        return best

    def _saved(self, name: str, choices: Choices) -> float:
        """The time that an operator in int8 would save."""
        return self._ms(choices) - self._ms(without(choices, name))

    def _ms(self, choices: Choices) -> float:
        return self.costs.problem.ms(
            self.costs.chosen(choices.excluded, choices.alone, choices.coarse)
        )


def applied(costs: Costs, choices: Choices, chosen: Sequence[int]) -> Choices:
    """The choices with what was chosen for each operator."""
    alone = choices.alone | costs.picked(chosen, ALONE, ALONE_4)
    excluded = choices.excluded | alone | costs.floats(chosen)
    coarse = choices.coarse | costs.picked(chosen, ALONE_4, NARROW)
    return replace(choices, excluded=excluded, alone=alone, coarse=coarse)


def without(choices: Choices, name: str) -> Choices:
    """The choices with an operator in int8 again."""
    return replace(
        choices,
        excluded=choices.excluded - {name},
        alone=choices.alone - {name},
        coarse=choices.coarse - {name},
    )
