"""The simplify pass: steps over the whole graph and rules, to a fixed point."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from onnxslim import ir
from onnxslim.ir import Editor, Model
from onnxslim.passes.fold.folder import Folder
from onnxslim.passes.simplify import steps
from onnxslim.passes.simplify.rounds import Rounds
from onnxslim.passes.simplify.rules import list_rules, rules_for
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Pass, PassResult, option
from onnxslim.pipeline.options import nearest
from onnxslim.rewrite import NearMiss

_SHOWN = 10
"""Near misses of one rule that are told one by one."""


@dataclass(frozen=True, kw_only=True)
class Simplify(Pass):
    """The same function in fewer nodes, in all scopes; a second run changes nothing.

    Constants are computed, what has no effect goes, equal things become one, patterns become the
    operator that they spell out: `list_rules` names each rule, and says which of them round.
    No declared shape is believed but those of the graph inputs. Names of graph inputs, outputs
    and of values that stay are kept.
    """

    name: ClassVar[str] = "simplify"
    summary: ClassVar[str] = "folds constants; removes, moves and fuses nodes by rules"

    skip: tuple[str, ...] = option((), "rules that are not applied", "names that --list-rules has")
    max_bytes: int = option(1 << 20, "largest constant that may be added, in bytes", "0 or more")
    inline: bool = option(False, "whether calls of the model's functions become their bodies")

    def __post_init__(self) -> None:
        """Check range and names."""
        if self.max_bytes < 0:
            raise ValueError(f"max_bytes must be 0 or more, got {self.max_bytes}")
        known = [rule.name for rule in list_rules()]
        for name in self.skip:
            if name not in known:
                raise ValueError(f"no rule '{name}'{nearest(name, known)}")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Repeat until nothing changes."""
        inlined = ir.inline_functions(model) if self.inline else 0
        editor = Editor(model)
        rules = [rule for rule in rules_for(ctx.env.target) if rule.name not in self.skip]
        rounds = Rounds(model, rules, self.skip, Folder(editor, self.max_bytes), editor)
        rounds.run()
        stats = _stats(rounds, inlined)
        changed = Aspect.STRUCTURE | Aspect.SHAPES | Aspect.WEIGHTS | Aspect.NUMERICS
        return PassResult(
            changed if stats else Aspect.NONE,
            stats,
            (*_declined(rounds.near_misses), *_unfolded(rounds.folder)),
            notes=() if rounds.settled else ("Stopped before all was simplified: run it again.",),
        )


def _stats(rounds: Rounds, inlined: int) -> dict[str, int | float | str]:
    """How often each rule was applied, in the order of the list; only those that were."""
    order = [step.name for step in steps.STEPS] + [rule.name for rule in rounds.rules]
    applied = {**rounds.applied, "inlined": inlined}
    return {name: applied[name] for name in ["inlined", *order, steps.DEAD] if applied.get(name)}


def _declined(misses: Iterable[NearMiss]) -> tuple[Declined, ...]:
    """Near misses as `rule: reason`; of very many for one rule the rest is counted."""
    by_rule: dict[str, list[NearMiss]] = defaultdict(list)
    for miss in misses:
        by_rule[miss.rule].append(miss)
    found: list[Declined] = []
    for rule, of_rule in by_rule.items():
        found.extend(Declined(miss.node, f"{rule}: {miss.reason}") for miss in of_rule[:_SHOWN])
        if (rest := len(of_rule) - _SHOWN) > 0:
            found.append(Declined(f"{rest} other nodes", f"{rule}: like those named"))
    return tuple(found)


def _unfolded(folder: Folder) -> tuple[Declined, ...]:
    name = steps.FOLD.name
    return tuple(Declined(d.node, f"{name}: {d.reason}") for d in folder.declined())
