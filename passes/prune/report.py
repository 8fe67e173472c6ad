"""What a pruning did and did not do, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxslim import ir
from onnxslim.passes.prune.budget import Choice
from onnxslim.passes.prune.choose import Chosen
from onnxslim.pipeline.base import Declined, Layer


@dataclass
class Account:
    """All steps of one run. `sizes`: units that groups had at first, by name."""

    sizes: dict[str, int] = field(default_factory=dict[str, int])
    steps: list[Chosen] = field(default_factory=list[Chosen])
    blocks: list[str] = field(default_factory=list[str])  # that left as a whole
    macs: float = 1.0  # after over before
    left: float = 1.0  # of the goal's currency

    def add(self, chosen: Chosen) -> None:
        """Count one step."""
        self.steps.append(chosen)
        self.macs *= chosen.macs_left
        self.left *= chosen.left

    @property
    def gone(self) -> Mapping[str, int]:
        """Units that left each group."""
        found: dict[str, int] = {}
        for step in self.steps:
            for choice, at in zip(step.choices, step.taken, strict=True):
                name = choice.ranking.group.name
                found[name] = found.get(name, 0) + choice.steps[at]
        return found

    def stats(self, goal: str) -> dict[str, int | float | str]:
        """Figures."""
        gone = self.gone
        found: dict[str, int | float | str] = {
            "groups": sum(count > 0 for count in gone.values()),
            "units": sum(gone.values()),
            "macs_ratio": round(self.macs, 4),
        }
        if self.blocks:
            found["blocks"] = len(self.blocks)
        if goal in ("params", "latency"):
            found[f"{goal}_ratio"] = round(self.left, 4)
        return found

    def rows(self) -> tuple[Layer, ...]:
        """One row for each block that left, and for each group that lost units."""
        kinds = {
            choice.ranking.group.name: choice.ranking.group
            for step in reversed(self.steps)
            for choice in step.choices
        }
        blocks = (Layer(name, "Add", "its residual block left") for name in self.blocks)
        return (
            *blocks,
            *(
                Layer(
                    name,
                    ir.op(kinds[name].rows[0].node),
                    f"{self.sizes[name] - count} of {self.sizes[name]} {kinds[name].kind} stay",
                )
                for name, count in self.gone.items()
                if count
            ),
        )

    def declined(self) -> tuple[Declined, ...]:
        """What cannot be pruned and why, and groups that the budget left alone."""
        if not self.steps:
            return ()
        last, gone = self.steps[-1], self.gone
        stuck = [
            Declined(s.node, f"{s.share:.0%} of its outputs stay: {s.reason}")
            for s in last.axes.stuck
        ]
        left = [
            Declined(choice.ranking.group.name, f"all {choice.ranking.group.kind} stay: {reason}")
            for choice in last.choices
            if not gone[choice.ranking.group.name] and (reason := _left_alone(choice))
        ]
        return (*stuck, *left)


def _left_alone(choice: Choice) -> str:
    if len(choice.steps) == 1:
        return "there are too few of them for the multiple and the floor"
    return "the budget is met without it"
