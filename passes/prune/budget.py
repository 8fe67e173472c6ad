"""How many units each group loses: least loss per amount saved, until the budget is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim.analyses.axes import AxisMap
from onnxslim.analyses.axes.groups import CONV_GROUPS
from onnxslim.ir import Array
from onnxslim.passes.prune.amount import Amounts
from onnxslim.passes.prune.importance import Ranking


@dataclass(frozen=True)
class Choice:
    """A group with what it may lose: counts of units removed, in steps, the first 0."""

    ranking: Ranking
    steps: tuple[int, ...]
    gain: float = 1.0  # of a relative loss, in the outputs of the model

    def loss(self, at: int) -> float:
        """The loss after so many steps, in the outputs of the model."""
        return self.gain * self.own_loss(at)

    def own_loss(self, at: int) -> float:
        """The same in the outputs of the layers that read the group."""
        return float(self.ranking.losses[self.steps[at]])

    def stays(self, at: int) -> float:
        """The share of the units that is left after so many steps."""
        return 1 - self.steps[at] / self.ranking.group.size

    def meets(self, other: Choice) -> bool:
        """Whether they are two ways to cut the same axis: a unit of one has a part of each."""
        theirs = np.concatenate(other.ranking.group.units)
        return bool(np.isin(self.ranking.group.units[0], theirs).any())


def steps(size: int, multiple: int, floor: float, block: int = 1) -> tuple[int, ...]:
    """Numbers of units that may go so that a multiple of `multiple` stays, or of half of it, and
    so on, until two such multiples fit; at least the share `floor` stays, and one unit. Of as many
    as `block` or more, at least that many."""
    while multiple > 1 and size < 2 * multiple:
        multiple //= 2
    if size >= block:
        multiple = max(multiple, block)
    least = max(1, int(np.ceil(size * floor)))
    stays = [n for n in range(multiple, size, multiple) if n >= least]
    return (0, *(size - n for n in reversed(stays)))


def by_share(choices: Sequence[Choice], share: float) -> list[int]:
    """The step of each group nearest to a share of its units.

    A grouped convolution that loses both whole groups and channels of each loses the share of its
    channels in all: about half of it by groups, and by channels what that leaves.
    """
    found = [0] * len(choices)
    grouped = [i for i, c in enumerate(choices) if c.ranking.group.kind == CONV_GROUPS]
    for i in grouped:
        found[i] = _nearest(choices[i], (1 - share) ** 0.5)
    for i, choice in enumerate(choices):
        if i not in grouped:
            over = [choices[j].stays(found[j]) for j in grouped if choice.meets(choices[j])]
            found[i] = _nearest(choice, (1 - share) / min(over, default=1.0))
    return found


def _nearest(choice: Choice, stays: float) -> int:
    return min(range(len(choice.steps)), key=lambda i: abs(choice.stays(i) - stays))


def within(
    axes: AxisMap, amounts: Amounts, choices: Sequence[Choice], budget: float
) -> tuple[list[int], float]:
    """Steps after which no more than the budget is left, or all that there are; and what is left.

    Greedy: the step of least loss per amount saved at what is left so far goes first. Each step
    looks at all groups, and counts the items of each again only where a neighbour has changed.
    """
    removed = axes.nothing()
    taken = [0] * len(choices)
    touched = [amounts.touched(choice.ranking.group) for choice in choices]
    left = amounts.total(removed)
    saved: list[float | None] = [None] * len(choices)
    while left > budget:
        best: tuple[float, int, int] | None = None
        for i, choice in enumerate(choices):
            if taken[i] + 1 >= len(choice.steps):
                continue
            if saved[i] is None:
                saved[i] = _saving(amounts, choice, taken[i], touched[i], removed)
            gain = saved[i] or 0.0
            lost = choice.loss(taken[i] + 1) - choice.loss(taken[i])
            price = lost / gain if gain > 0 else np.inf
            if best is None or price < best[0]:
                best = (price, i, taken[i] + 1)
        if best is None or best[0] == np.inf:
            break
        _, i, at = best
        left -= saved[i] or 0.0
        _remove(choices[i], taken[i], at, removed)
        taken[i] = at
        mine = set(touched[i])
        saved = [None if mine & set(touched[j]) else s for j, s in enumerate(saved)]
    return taken, _spend(amounts, choices, taken, touched, removed, left, budget)


def _spend(
    amounts: Amounts,
    choices: Sequence[Choice],
    taken: list[int],
    touched: Sequence[list[int]],
    removed: Array,
    left: float,
    budget: float,
) -> float:
    """Take steps back, the greatest loss first, while the budget holds; what is left."""
    while True:
        best: tuple[float, int, float] | None = None
        for i, choice in enumerate(choices):
            if taken[i] == 0:
                continue
            gain = choice.loss(taken[i]) - choice.loss(taken[i] - 1)
            if best is not None and gain <= best[0]:
                continue
            before: Array = np.array(removed)
            _put_back(choice, taken[i], before)
            more = amounts.of(touched[i], before) - amounts.of(touched[i], removed)
            if left + more <= budget:
                best = (gain, i, more)
        if best is None:
            return left
        _, i, more = best
        _put_back(choices[i], taken[i], removed)
        taken[i] -= 1
        left += more


def _put_back(choice: Choice, at: int, removed: Array) -> None:
    for unit in choice.ranking.order[choice.steps[at - 1] : choice.steps[at]]:
        removed[choice.ranking.group.units[unit]] = False


def _saving(amounts: Amounts, choice: Choice, at: int, nodes: list[int], removed: Array) -> float:
    after: Array = np.array(removed)
    _remove(choice, at, at + 1, after)
    return amounts.of(nodes, removed) - amounts.of(nodes, after)


def _remove(choice: Choice, before: int, after: int, removed: Array) -> None:
    for unit in choice.ranking.order[choice.steps[before] : choice.steps[after]]:
        removed[choice.ranking.group.units[unit]] = True


def removal(axes: AxisMap, choices: Sequence[Choice], taken: Sequence[int]) -> Array:
    """Flags of the classes that go."""
    removed = axes.nothing()
    for choice, at in zip(choices, taken, strict=True):
        _remove(choice, 0, at, removed)
    return removed
