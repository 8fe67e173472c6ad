"""After a check that failed: which pass went over budget first, and the last good state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxslim.ir import Model
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Pass, Verdict
from onnxslim.pipeline.manager import Stage


@dataclass(frozen=True)
class OverBudget:
    """Where the check fails first: the stage, and the last good state before it."""

    index: int
    good_model: Model
    good_verdict: Verdict | None  # None when the last good state is the original


def find_over_budget(stages: Sequence[Stage], check: Pass, ctx: Context) -> OverBudget:
    """Check the state after each pass in turn, until one fails.

    `stages` without the check itself; the last of them is known to fail and is not run again.
    """
    good_model, good_verdict = ctx.original, None
    for index, stage in enumerate(stages[:-1]):
        if not stage.result.changed:
            continue
        verdict = _verdict(stage.model, check, ctx)
        if verdict is not None and not verdict.passed:
            return OverBudget(index, good_model, good_verdict)
        good_model, good_verdict = stage.model, verdict
    return OverBudget(_last_change(stages), good_model, good_verdict)


def _verdict(model: Model, check: Pass, ctx: Context) -> Verdict | None:
    now = replace(ctx, analyses=AnalysisManager(model, ctx.env))
    return check.run(model, now).verdict


def _last_change(stages: Sequence[Stage]) -> int:
    changed = [i for i, stage in enumerate(stages) if stage.result.changed]
    return changed[-1] if changed else len(stages) - 1
