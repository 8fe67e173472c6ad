"""The simplify pass: fold and rules in turn until neither changes anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxslim.ir import Editor, Model
from onnxslim.passes.fold.fold import Fold
from onnxslim.passes.simplify.rules import rules_for
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Pass, PassResult, option
from onnxslim.rewrite import apply

_ROUNDS = 10


@dataclass(frozen=True, kw_only=True)
class Simplify(Pass):
    """The same function in fewer nodes, equal to float rounding."""

    name: ClassVar[str] = "simplify"
    summary: ClassVar[str] = "folds constants; removes, moves and fuses nodes by rules"

    skip: tuple[str, ...] = option((), "rules that are not applied", "names of rules")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Repeat until nothing changes."""
        stats: dict[str, int | float | str] = {}
        declined: list[Declined] = []
        rules = [r for r in rules_for(ctx.env.target) if r.name not in self.skip]
        for _ in range(_ROUNDS):
            folded = Fold().run(model, ctx)
            editor = Editor(model)
            outcome = apply(editor, rules)
            editor.remove_dead()
            for key, count in (*folded.stats.items(), *outcome.applied.items()):
                stats[key] = int(stats.get(key, 0)) + int(count)
            declined = [
                Declined(miss.node, f"{miss.rule}: {miss.reason}") for miss in outcome.near_misses
            ]
            if not outcome.count:
                break
        changed = Aspect.STRUCTURE | Aspect.SHAPES | Aspect.WEIGHTS | Aspect.NUMERICS
        return PassResult(changed if any(stats.values()) else Aspect.NONE, stats, tuple(declined))
