"""The straight line from a request to a result, on one page.

load -> passes in place, each verified -> check on held-out samples -> save once -> report
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from onnxslim import ir, registry
from onnxslim.apart import check_data, check_files, check_folders
from onnxslim.config import DTYPES, Request
from onnxslim.environment import environment
from onnxslim.errors import (
    CheckFailed,
    ConfigError,
    ModelError,
    OnnxSlimError,
    OptionError,
    RuntimeUnavailable,
)
from onnxslim.files import file_bytes, saved_bytes, write_text
from onnxslim.ir import Model
from onnxslim.ir.io import data_files
from onnxslim.leftovers import remove_scratch
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment, Pass, Progress, silent
from onnxslim.pipeline.guard import Guard
from onnxslim.pipeline.instruments import Announce, Dump, Instrument, Verify
from onnxslim.pipeline.manager import run_passes
from onnxslim.pipeline.options import to_spec
from onnxslim.pipeline.order import check_order
from onnxslim.pipeline.outcome import Outcome, settle
from onnxslim.pipeline.reproducer import Reproducer, versions
from onnxslim.pipeline.retry import run_within_budget
from onnxslim.pipeline.spec import PassSpec
from onnxslim.pipeline.stopwatch import judge_in_turn, time_in_turn
from onnxslim.report.build import check_entry, pass_entries, renamed
from onnxslim.report.footprint import FootprintEach, footprint
from onnxslim.report.record import Effect, Latency, Macs, Nodes, Report, Size
from onnxslim.report.written import text_for


@dataclass(frozen=True)
class Watch:
    """Who looks on."""

    progress: Progress = silent
    instruments: tuple[Instrument, ...] = ()


UNWATCHED = Watch()

NOT_CHECKED = "Not checked: nothing was run, so outputs and speed were not compared."


def compile_file(source: Path, output: Path, request: Request, watch: Watch = UNWATCHED) -> Report:
    """Compile a file into a file; no model is written unless all went well.

    The report that is asked for is written where the check failed too: it says why.

    Raises OnnxSlimError: its `exit_code` says of which kind.
    """
    plan = make_plan(request)
    check_files(source, output, request)
    model = ir.load(source)
    check_data(data_files(model), output, request)
    before = file_bytes(source, model)
    try:
        result, report = compile_model(model, request, watch, plan)
    except CheckFailed as failed:
        if isinstance(failed.report, Report):
            notes = (*failed.report.notes, f"{output} was not written.")
            report = replace(failed.report, input=str(source), output=str(output), notes=notes)
            failed.report = report
            _write_report(request, report)
        raise
    ir.save(result, output, request.external)
    size = Size(before, saved_bytes(output, result))
    report = replace(report, input=str(source), output=str(output), size=size)
    _write_report(request, report, f"{output} was written")
    return report


def _write_report(request: Request, report: Report, so_far: str = "nothing was changed") -> None:
    if request.report is not None:
        write_text(request.report, text_for(request.report, report), so_far)


def compile_model(
    model: Model, request: Request, watch: Watch = UNWATCHED, plan: Plan | None = None
) -> tuple[Model, Report]:
    """Compile a model in memory; the one that is given is changed in place.

    Raises OnnxSlimError; CheckFailed holds the report.
    """
    start = time.perf_counter()
    plan = plan or make_plan(request)
    check_folders(request)
    remove_scratch()
    ir.cut(model, inputs=request.inputs, outputs=request.outputs)
    if not model.graph.outputs:
        raise ModelError("the model has no output, so nothing of it is needed; name one: --outputs")
    if request.input_shapes:
        _set_shapes(model, request)
    footprints = FootprintEach(may_run=request.check)
    original = ir.snapshot(model)
    with environment(model, request, watch.progress) as env:
        ctx = Context(env, AnalysisManager(model, env), original)
        guard = None if request.allow_slower else Guard(judge_in_turn)
        instruments = (*watch.instruments, *_instruments(request, plan), footprints)
        run = run_within_budget if request.check else run_passes
        stages = run(model, plan.passes, ctx, instruments, guard)
        if request.check:
            outcome = settle(stages, ctx, request.keep_best)
            latency, notes = _latency(original, outcome, env)
            brought = _effects(outcome, footprints, ctx, latency)
        else:
            result = stages[-1].model if stages else original
            outcome = Outcome(result, tuple(stages), len(stages), None)
            brought = [None] * len(stages)
            latency, notes = Latency(None, None, env.threads), (NOT_CHECKED,)
    if not footprints.seen:  # no pass ran
        footprints.seen.append(footprint(model, None))
    first, after = footprints.seen[0], footprints.seen[outcome.kept]
    if request.dtype is not None and not outcome.failure:
        _retype_ends(outcome.model, request.dtype)
        after = replace(footprint(outcome.model, None), macs=after.macs)
    report = Report(
        input=ir.kind_of(model),
        output=ir.kind_of(model),
        target=request.target,
        pipeline=plan.text,
        passes=pass_entries(outcome.stages, footprints.seen[1:], brought),
        size=Size(first.weight_bytes, after.weight_bytes),
        nodes=Nodes(first.nodes, after.nodes),
        latency_ms=latency,
        macs=Macs(first.macs, after.macs),
        check=check_entry(outcome.verdict, outcome.first_over_budget),
        names=renamed(stage.result.names for stage in outcome.stages if stage.kept),
        notes=(*plan.warnings, *outcome.notes, *notes),
        seconds=round(time.perf_counter() - start, 3),
        versions=versions(),
    )
    if outcome.failure:
        raise CheckFailed(outcome.failure, report)
    return outcome.model, report


def _set_shapes(model: Model, request: Request) -> None:
    """Give the inputs the sizes that were asked for; with a check, see that the model runs.

    Raises ConfigError for sizes that it does not run with, while it did without them.
    """
    from onnxslim.runtime.synthesize import synthesize

    before = ir.snapshot(model)
    ir.set_input_shapes(model, request.input_shapes)
    if not request.check:
        return
    try:
        synthesize(model, 1, request.seed, request.threads)
    except RuntimeUnavailable as error:
        with suppress(RuntimeUnavailable):
            synthesize(before, 1, request.seed, request.threads)
            shapes = ", ".join(
                f"{n}:{','.join(map(str, s))}" for n, s in request.input_shapes.items()
            )
            raise ConfigError(f"--input-shapes {shapes}: {error}") from error


@dataclass(frozen=True)
class Plan:
    """The passes as they will run, the check last."""

    passes: tuple[Pass, ...]
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """As it can be given to --passes again."""
        return ",".join(str(to_spec(p)) for p in self.passes)


def make_plan(request: Request) -> Plan:
    """Read the pipeline; raises OptionError, ConfigError, PipelineSyntaxError."""
    passes = list(registry.build(request.passes))
    if request.dtype is not None:
        last = len(passes) - 1 if passes and passes[-1].name == "check" else len(passes)
        passes[last:last] = registry.build([PassSpec("cast", {"to": (DTYPES[request.dtype],)})])
    warnings = check_order([p.name for p in passes])
    if not request.check:
        if any(p.name == "check" for p in passes):
            raise ConfigError("--no-check does not go with the pass 'check'; drop one of them")
        return Plan(tuple(passes), warnings)
    if not passes or passes[-1].name != "check":
        passes += registry.build("check")
    flags = {"metric": request.metric, "max_drop": request.max_drop}
    given = {key: value for key, value in flags.items() if value is not None}
    try:
        passes[-1] = replace(passes[-1], **given)
    except ValueError as error:
        raise OptionError(f"check: {error}") from error
    return Plan(tuple(passes), warnings)


def _retype_ends(model: Model, dtype: str) -> None:
    from onnxslim.ir.floats import retype_ends
    from onnxslim.passes.cast.cast import TYPES

    retype_ends(model, TYPES[DTYPES[dtype]])


def _instruments(request: Request, plan: Plan) -> Sequence[Instrument]:
    dump = () if request.dump is None else (Dump(request.dump),)
    return (Announce(len(plan.passes)), Verify(), *dump, Reproducer(request.dump))


def _effects(
    outcome: Outcome, footprints: FootprintEach, ctx: Context, latency: Latency
) -> Sequence[Effect | None]:
    from onnxslim.report.effects import effects

    if outcome.failure:
        return [None] * len(outcome.stages)
    return effects(outcome.stages, footprints.seen, ctx, latency.before)


def _latency(
    original: Model, outcome: Outcome, env: Environment
) -> tuple[Latency, tuple[str, ...]]:
    if outcome.failure:
        return Latency(None, None, env.threads), ()
    if outcome.model is original:
        return Latency(None, None, env.threads), ("No pass changed the model.",)
    if not env.target.here:
        note = f"Latency was not measured: '{env.target.name}' is not the runtime of this machine."
        return Latency(None, None, env.threads), (note,)
    try:
        times = time_in_turn(original, outcome.model, env)
    except OnnxSlimError as error:
        note = f"Latency was not measured: {error}"
        return Latency(None, None, env.threads), (note,)
    found = Latency(times.before_ms, times.after_ms, env.threads, times.ratio, times.noise)
    return found, ()
