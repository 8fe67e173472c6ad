"""A check that fails sends the pass that is over budget back to do less, a few times at most.

The check says no more than yes or no: what a pass leaves out in the next try is its own choice,
made on calibration samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxslim import ir
from onnxslim.ir import Model
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Pass, PassResult
from onnxslim.pipeline.budget import find_over_budget
from onnxslim.pipeline.guard import Guard
from onnxslim.pipeline.instruments import Instrument
from onnxslim.pipeline.manager import Stage, run_passes

TRIES = 5
"""How often a pass is sent back."""


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
    for count in range(1, TRIES + 1):
        milder = stages[index].pass_.stricter(stages[index].result)
        if milder is None:
            break
        passes = [*passes[:index], milder, *passes[index + 1 :]]
        stages = _again(model, passes, ctx, instruments, guard, stages[:index])
        stages[index] = _noted(stages[index], count)
        if _passed(stages):
            break
    return stages


def _passed(stages: Sequence[Stage]) -> bool:
    verdict = stages[-1].result.verdict if stages else None
    return verdict is None or verdict.passed


def _again(
    model: Model,
    passes: Sequence[Pass],
    ctx: Context,
    instruments: Sequence[Instrument],
    guard: Guard | None,
    kept: Sequence[Stage],
) -> list[Stage]:
    """Run the passes after those that are kept, from the state that these left."""
    ir.restore(model, kept[-1].model if kept else ctx.original)
    ctx.analyses.invalidate(Aspect.ALL)
    for instrument in instruments:
        instrument.rewind(len(kept))
    return run_passes(model, passes, ctx, instruments, guard, kept)


def _noted(stage: Stage, count: int) -> Stage:
    times = "once" if count == 1 else f"{count} times"
    note = (
        f"{stage.pass_.name} was sent back {times}, because the check failed; what it leaves alone "
        "now is chosen on calibration samples"
    )
    result: PassResult = replace(stage.result, notes=(*stage.result.notes, note))
    return replace(stage, result=result)
