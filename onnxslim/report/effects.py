"""What each pass brought: the states between the passes beside the original, in brief."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxslim.errors import OnnxSlimError
from onnxslim.ir import Model
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Pass, Verdict
from onnxslim.pipeline.manager import Stage
from onnxslim.pipeline.stopwatch import sample_of
from onnxslim.report.footprint import Footprint
from onnxslim.report.record import Effect
from onnxslim.runtime.latency import interleaved_latency

_SECONDS = 1.5  # for the clock, and as long for the samples
_ROUNDS = 7  # that the clock takes at least


def effects(
    stages: Sequence[Stage], seen: Sequence[Footprint], ctx: Context, original_ms: float | None
) -> list[Effect | None]:
    """One per stage that changed the model, None for the others; nothing but None where fewer
    than two passes worked on layers, since the report has the whole then.

    The last of the stages is the check, whose metric is taken, on as many of the samples as take
    some seconds. `seen` are the footprints of the original and after each stage; `original_ms` of
    one run tell how much there is time for. What cannot run has a size alone.
    """
    found: list[Effect | None] = [None] * len(stages)
    changed = [n for n, stage in enumerate(stages) if stage.kept and stage.result.changed]
    if sum(bool(stages[n].result.layers) for n in changed) < 2:
        return found
    times = _times([stages[n].model for n in changed], ctx, original_ms)
    for number, n in enumerate(changed):
        ctx.env.progress("what each pass brought", number, len(changed))
        ms = 2 * (original_ms or 0.0) if times is None else times[0] + times[number + 1]
        verdict = _verdict(stages[n].model, stages[-1].pass_, ctx, ms)
        noise = () if verdict is None else verdict.sqnr_db.values()
        found[n] = Effect(
            size=seen[n + 1].weight_bytes / max(seen[0].weight_bytes, 1),
            macs=_share(seen[n + 1].macs, seen[0].macs),
            time=None if times is None else times[number + 1] / times[0],
            sqnr_db=min(noise, default=None),
            metric="" if verdict is None else verdict.metric,
            drop=None if verdict is None else verdict.drop,
            samples=0 if verdict is None else verdict.samples,
        )
    return found


def _share(after: int | None, before: int | None) -> float | None:
    return after / before if before and after is not None else None


def _times(
    models: Sequence[Model], ctx: Context, original_ms: float | None
) -> tuple[float, ...] | None:
    """Milliseconds of the original and of each model, in turns; None where that would take long."""
    rounds = (1 + len(models)) * _ROUNDS
    if original_ms is None or rounds * original_ms > 2 * _SECONDS * 1e3:
        return None
    every, feed = [ctx.original, *models], sample_of(ctx.original, ctx.env)
    try:
        return interleaved_latency(every, feed, ctx.env.threads, _SECONDS).ms
    except OnnxSlimError:
        return None


def _verdict(model: Model, check: Pass, ctx: Context, ms: float) -> Verdict | None:
    """The check's on some of its samples; `ms` of a run of the original and one of the model."""
    env, samples = ctx.env, ctx.env.evaluation
    if samples is not None and ms > 0:
        count = min(max(int(_SECONDS * 1e3 / ms), 1), len(samples))
        spread = [i * len(samples) // count for i in range(count)]
        env = replace(env, evaluation=samples.take(spread))
    now = replace(ctx, env=env, analyses=AnalysisManager(model, env))
    try:
        return check.run(model, now).verdict
    except OnnxSlimError:
        return None
