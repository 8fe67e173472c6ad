"""A check that fails sends the pass that is over budget back to do less, a few times at most.

Once it passes, what lies between the last try that failed and the one that passed is tried, so
that little of the budget is left over. The check says no more than yes or no: what a pass leaves
out in the next try is its own choice, made on calibration samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxslim import ir
from onnxslim.errors import OptionError
from onnxslim.ir import Model
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Pass, PassResult
from onnxslim.pipeline.budget import find_over_budget
from onnxslim.pipeline.guard import Guard
from onnxslim.pipeline.instruments import Instrument
from onnxslim.pipeline.manager import Stage, run_passes

TRIES = 5
"""How often a pass is sent back."""

NEARER = 2
"""How often something between the last that failed and the one that passed is tried."""


def run_within_budget(
    model: Model,
    passes: Sequence[Pass],
    ctx: Context,
    instruments: Sequence[Instrument] = (),
    guard: Guard | None = None,
) -> list[Stage]:
    """Run the passes, of which the last is the check, until it passes or nothing milder is left.

    Raises what `run_passes` raises. The result's notes say how often a pass was sent back.
    """
    stages = run_passes(model, passes, ctx, instruments, guard)
    if _passed(stages) or len(stages) < 2:
        return stages
    index = find_over_budget(stages[:-1], stages[-1].pass_, ctx).index
    retry = _Retry(model, ctx, instruments, guard, index)
    for count in range(1, TRIES + 1):
        failed = stages[index]
        milder = failed.pass_.stricter(failed.result)
        if milder is None:
            break
        tried = retry.run(stages, milder)
        if tried is None:
            break
        stages = tried
        if _passed(stages):
            stages = retry.nearer(stages, failed)
            stages[index] = _noted(stages[index], count)
            break
        stages[index] = _noted(stages[index], count)
    return stages


def _passed(stages: Sequence[Stage]) -> bool:
    verdict = stages[-1].result.verdict if stages else None
    return verdict is None or verdict.passed


@dataclass(frozen=True)
class _Retry:
    """Runs the passes from one of them on, from the state that those before it left."""

    model: Model
    ctx: Context
    instruments: Sequence[Instrument]
    guard: Guard | None
    index: int

    def run(self, stages: Sequence[Stage], instead: Pass) -> list[Stage] | None:
        """With another pass in the place of the one that is sent back; None, and all is as after
        these stages, where a pass cannot do what it is asked for now."""
        kept = stages[: self.index]
        self._rewind(kept)
        later = (stage.pass_ for stage in stages[self.index + 1 :])
        passes = [*(stage.pass_ for stage in kept), instead, *later]
        try:
            return run_passes(self.model, passes, self.ctx, self.instruments, self.guard, kept)
        except OptionError:
            self._restore(stages)
            return None

    def nearer(self, passed: list[Stage], failed: Stage) -> list[Stage]:
        """The mildest stages found that pass the check."""
        last = passed
        for _ in range(NEARER):
            middle = failed.pass_.between(failed.result, passed[self.index].pass_)
            if middle is None:
                break
            tried = self.run(passed, middle)
            if tried is None:
                break
            last = tried
            if _passed(last):
                passed = last
            else:
                failed = last[self.index]
        if last is not passed:
            self._restore(passed)
        return passed

    def _restore(self, stages: Sequence[Stage]) -> None:
        """Leave the model, and what the instruments have seen, as after these stages."""
        self._rewind(stages[: self.index])
        for stage in stages[self.index :]:
            for instrument in self.instruments:
                instrument.before(stage.pass_, self.model, self.ctx)
            ir.restore(self.model, stage.model)
            for instrument in reversed(self.instruments):
                instrument.after(stage.pass_, self.model, self.ctx, stage.result)
        self.ctx.analyses.invalidate(Aspect.ALL)

    def _rewind(self, kept: Sequence[Stage]) -> None:
        ir.restore(self.model, kept[-1].model if kept else self.ctx.original)
        self.ctx.analyses.invalidate(Aspect.ALL)
        for instrument in self.instruments:
            instrument.rewind(len(kept))


def _noted(stage: Stage, count: int) -> Stage:
    times = "once" if count == 1 else f"{count} times"
    note = (
        f"{stage.pass_.name} was sent back {times}, because the check failed; what it leaves alone "
        "now is chosen on calibration samples"
    )
    result: PassResult = replace(stage.result, notes=(*stage.result.notes, note))
    return replace(stage, result=result)
