"""Steps and rules in turn until a round with facts found anew changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Editor, Model
from onnxslim.passes.fold.bypass import inline_branches, remove_copies
from onnxslim.passes.fold.folder import Folder
from onnxslim.passes.fold.replace import constants_to_initializers
from onnxslim.passes.simplify import steps
from onnxslim.passes.simplify.cse import share_equal_nodes
from onnxslim.passes.simplify.dedup import Sharing
from onnxslim.passes.simplify.loops import unroll_loops
from onnxslim.passes.simplify.steps import Step
from onnxslim.rewrite import NearMiss, Rule, apply

ROUNDS = 20
"""More have not been seen: a round settles all but what one rewrite shows to far-away rules."""


@dataclass
class Rounds:
    """Simplification of one model. That the last round starts from nothing but the model and
    changes nothing is what makes a second run change nothing."""

    model: Model
    rules: Sequence[Rule]
    skip: Collection[str]
    folder: Folder
    editor: Editor
    sharing: Sharing = field(default_factory=Sharing)
    applied: Counter[str] = field(default_factory=Counter[str])
    near_misses: tuple[NearMiss, ...] = ()
    settled: bool = False  # False when the bound was reached

    def run(self) -> None:
        """All rounds, then what is unused."""
        self._clean()
        for _ in range(ROUNDS):
            if not self._round():
                self.settled = True
                break
        self._do(steps.FUNCTIONS, lambda: ir.remove_unused_functions(self.model))
        self._do(steps.IMPORTS, lambda: ir.remove_unused_imports(self.model))

    def _round(self) -> int:
        editor, model, facts = self.editor, self.model, Facts(self.model)
        count = self._do(steps.FOLD, lambda: self.folder.fold(facts))
        moved = self._do(steps.BRANCHES, lambda: inline_branches(editor, model))
        moved += self._do(steps.LOOPS, lambda: unroll_loops(editor, model, facts))
        count += moved + self._do(steps.COPIES, lambda: remove_copies(editor, model))
        count += self._do(steps.CONSTANTS, lambda: constants_to_initializers(editor, model))
        count += self._share()
        if moved:
            return count  # the facts are of another graph
        outcome = apply(editor, self.rules, facts=facts)
        self.applied.update(outcome.applied)
        self.near_misses = outcome.near_misses
        return count + outcome.count + (self._share() if outcome.count else 0)

    def _share(self) -> int:
        """Equal things become one; what nothing reads then goes."""
        editor, model = self.editor, self.model
        count = self._do(steps.EQUAL_INITIALIZERS, lambda: self.sharing.share(editor, model))
        count += self._do(steps.EQUAL_NODES, lambda: share_equal_nodes(editor, model))
        return count + self._clean()

    def _do(self, step: Step, work: Callable[[], int]) -> int:
        if step.name in self.skip:
            return 0
        count = work()
        self.applied[step.name] += count
        return count

    def _clean(self) -> int:
        count = self.editor.remove_dead()
        self.applied[steps.DEAD] += count
        return count
