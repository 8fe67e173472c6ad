"""From what the passes left behind to the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Verdict
from onnxslim.pipeline.manager import Stage
from onnxslim.report.footprint import Footprint
from onnxslim.report.record import CheckEntry, Effect, PassEntry


def pass_entries(
    stages: Sequence[Stage], after: Sequence[Footprint], brought: Sequence[Effect | None]
) -> tuple[PassEntry, ...]:
    """One entry per stage; `after` are the footprints after each of them."""
    return tuple(_entry(s, f, e) for s, f, e in zip(stages, after, brought, strict=True))


def _entry(stage: Stage, after: Footprint, brought: Effect | None) -> PassEntry:
    result = stage.result
    return PassEntry(
        spec=stage.spec,
        seconds=round(stage.seconds, 3),
        peak_mb=None if stage.peak_mb is None else round(stage.peak_mb, 1),
        changed=aspect_names(result.changed),
        stats=dict(result.stats),
        declined=result.declined,
        layers=result.layers,
        notes=result.notes,
        kept=stage.kept,
        macs=after.macs,
        weight_bytes=after.weight_bytes,
        effect=brought,
    )


def aspect_names(changed: Aspect) -> tuple[str, ...]:
    """The aspects as words, in the order of their declaration."""
    single = (Aspect.STRUCTURE, Aspect.SHAPES, Aspect.WEIGHTS, Aspect.NUMERICS)
    return tuple(str(a.name) for a in single if a & changed)


def check_entry(verdict: Verdict | None, first_over_budget: str | None = None) -> CheckEntry | None:
    """The verdict as the report has it."""
    if verdict is None:
        return None
    return CheckEntry(
        metric=verdict.metric,
        before=verdict.before,
        after=verdict.after,
        drop=verdict.drop,
        limit=verdict.limit,
        samples=verdict.samples,
        sqnr_db=dict(verdict.sqnr_db),
        passed=verdict.passed,
        synthetic=verdict.synthetic,
        interval=verdict.interval,
        reasons=verdict.reasons,
        first_over_budget=first_over_budget,
    )


def renamed(maps: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Old name -> new name over several passes in order: a -> b and b -> c make a -> c."""
    total: dict[str, str] = {}
    for names in maps:
        total = {old: names.get(new, new) for old, new in total.items()} | {
            old: new for old, new in names.items() if old not in total.values()
        }
    return {old: new for old, new in total.items() if old != new}
