"""What the check makes of the run: the result, an earlier state, or a failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxslim.ir import Model
from onnxslim.pipeline.base import Context, Declined, PassResult, Verdict
from onnxslim.pipeline.budget import OverBudget, find_over_budget
from onnxslim.pipeline.manager import Stage


@dataclass(frozen=True)
class Outcome:
    """Which model is the result, and why."""

    model: Model
    stages: tuple[Stage, ...]
    kept: int  # how many of the stages the model has behind it
    verdict: Verdict | None
    failure: str = ""  # why there is no result
    first_over_budget: str | None = None
    notes: tuple[str, ...] = ()


def settle(stages: Sequence[Stage], ctx: Context, keep_best: bool) -> Outcome:
    """The outcome of stages of which the last is the check."""
    *work, last = stages
    verdict = last.result.verdict
    if verdict is None or verdict.passed:
        return Outcome(last.model, tuple(stages), len(stages), verdict)
    if not work:
        return Outcome(last.model, tuple(stages), 0, verdict, _sentence(verdict, "no pass"))
    over = find_over_budget(work, last.pass_, ctx)
    first = work[over.index].spec
    if not keep_best:
        failure = _sentence(verdict, f"'{first}'")
        return Outcome(last.model, tuple(stages), len(stages), verdict, failure, first)
    return _rolled_back(stages, over, verdict)


def _sentence(verdict: Verdict, first: str) -> str:
    why = "; ".join(verdict.reasons) or f"{verdict.metric} dropped by {verdict.drop}"
    return (
        f"the check failed: {why}; the first pass over budget is {first}; nothing was written; "
        "--keep-best writes the last state that passes"
    )


def _rolled_back(stages: Sequence[Stage], over: OverBudget, failed: Verdict) -> Outcome:
    *work, last = stages
    first = work[over.index].spec
    reason = f"undone: the check fails after '{first}' ({'; '.join(failed.reasons)})"
    undone = tuple(_undone(stage, reason) for stage in work[over.index :])
    note = (
        f"Kept the state before '{first}', the last that passes the check."
        if over.good_verdict is not None
        else f"Already '{first}' fails the check: the output is the input, unchanged."
    )
    return Outcome(
        over.good_model,
        (*work[: over.index], *undone, last),
        over.index,
        over.good_verdict,
        first_over_budget=first,
        notes=(note,),
    )


def _undone(stage: Stage, reason: str) -> Stage:
    declined = (Declined("whole model", reason), *stage.result.declined)
    result = PassResult(declined=declined, notes=stage.result.notes)
    return replace(stage, result=result, kept=False)
