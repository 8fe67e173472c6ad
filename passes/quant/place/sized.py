"""What each operator becomes so that the weights take no more bytes than asked for.

Of all choices that fit, those that are predicted to disturb the outputs least, first among those
that are as fast as any that fits, then among slower ones where the outputs miss their goal. What
is predicted is the number of bytes too: what a try really takes corrects it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, inf

from onnxslim import ir
from onnxslim.errors import OptionError
from onnxslim.ir import Model
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.search import Search, weight_sizes
from onnxslim.passes.quant.choose.widths import rounding_noise
from onnxslim.passes.quant.place.costs import INT8, Costs
from onnxslim.passes.quant.place.mixed import least_noise, least_time
from onnxslim.passes.quant.place.mixed_problem import Problem
from onnxslim.passes.quant.place.noise import input_noise
from onnxslim.passes.quant.place.placement import Placement
from onnxslim.passes.quant.place.precisions import ALONE_4, BYTES
from onnxslim.passes.quant.place.protection import applied
from onnxslim.passes.quant.place.stored import stored_bytes
from onnxslim.passes.quant.rewrite.apply import plan_for
from onnxslim.pipeline.base import Context

SLOWER = (1.02, 1.25, inf)
"""How much longer than the fastest choices others may take, in turn, while the goal is missed."""

ROUNDS = 4
"""Of correcting the number of bytes."""


@dataclass(frozen=True)
class Budget:
    """`share` of the `before` bytes that all weights took in float. `fits`: whether weights of 4
    bits are fitted to what layers read."""

    share: float
    before: int
    fits: bool

    @property
    def most(self) -> float:
        """Bytes."""
        return self.share * self.before


def bytes_before(model: Model, ctx: Context) -> int:
    """Of all weights of a float model, or of the one that was given to the pipeline where that is
    smaller, as a pass may have copied a weight that was shared."""
    return min(ir.weight_bytes(model), ir.weight_bytes(ctx.original))


def within_size(
    search: Search, placement: Placement, choices: Choices, budget: Budget, goal_db: float,
    alone: bool, packs: bool,
) -> Choices:  # fmt: skip
    """The choices that keep to a budget with the least noise; as they are where that is enough.

    `alone`: weights alone are a choice too; `packs`: so are weights of 4 bits, stored as such.
    Costs the trials of `rounding_noise` and some ten of the whole model. Raises OptionError where
    no choice is small enough; names the least that is.
    """
    good = search.score(choices) >= goal_db
    if good and stored_bytes(search, choices) <= budget.most:
        return choices
    choices = replace(choices, second_order=choices.second_order or budget.fits)
    plan = plan_for(search.model, search.target, search.facts, choices)
    sizes = weight_sizes(plan)
    costs = placement.with_alone(choices) if alone else placement.costs(choices)
    costs = costs.with_narrow(sizes) if packs else costs
    noise = {} if good else input_noise(search, placement, choices)
    rounding = placement.known.rounding
    if (packs or costs.having(ALONE_4)) and choices not in rounding:
        rounding[choices] = rounding_noise(search, choices)
    problem = costs.with_noise(noise, sizes, rounding.get(choices), BYTES)
    whole = stored_bytes(search, choices)
    return _Sized(search, costs, problem, choices, whole).best(budget, goal_db)


@dataclass
class _Sized:
    """One problem, whose sizes are bytes; `whole` is what the choices that it starts from take."""

    search: Search
    costs: Costs
    problem: Problem
    choices: Choices
    whole: int

    def best(self, budget: Budget, goal_db: float) -> Choices:
        """The first that meets the goal, else the one nearest to it."""
        found: dict[Choices, float] = {}
        for slower in SLOWER:
            tried = self._fitting(budget, slower)
            found[tried] = self.search.score(tried)
            if found[tried] >= goal_db:
                break
        return max(found, key=found.__getitem__)

    def _fitting(self, budget: Budget, slower: float) -> Choices:
        """The least noise within the bytes, as those that were really taken tell them."""
        others = self.whole - self.problem.size(self.costs.chosen(()))
        most = budget.most - others
        for _ in range(ROUNDS):
            fastest = least_time(self.problem, size=most)
            if fastest is None:
                break
            quiet = least_noise(self.problem, fastest.ms * slower, most)
            tried = applied(self.costs, self.choices, (quiet or fastest).chosen)
            excess = stored_bytes(self.search, tried) - budget.most
            if excess <= 0:
                return tried
            most -= excess
        return self._smallest(budget)

    def _smallest(self, budget: Budget) -> Choices:
        """Of every operator the smallest choice, if that is small enough."""
        chosen = [
            min((INT8, *range(len(row))), key=[choice.size for choice in row].__getitem__)
            for row in self.problem.operators
        ]
        least = applied(self.costs, self.choices, chosen)
        taken = stored_bytes(self.search, least)
        if taken <= budget.most:
            return least
        reached = ceil(1000 * taken / budget.before) / 1000
        if reached >= 1:
            raise OptionError(
                f"quant: size={budget.share:g}: no layer can be quantized to fewer bytes; without "
                "size the result names the layers and why"
            )
        raise OptionError(
            f"quant: size={budget.share:g}: the smallest choice of every layer leaves {reached:g} "
            f"of the bytes of all weights; ask for size={reached:g} or more"
        )
