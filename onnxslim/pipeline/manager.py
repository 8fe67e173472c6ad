"""Runs passes in order; instruments watch. One loop, no special cases per pass."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxslim import ir
from onnxslim.errors import OnnxSlimError, OutputError, PassError
from onnxslim.ir import Model
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Pass, PassResult
from onnxslim.pipeline.guard import Guard
from onnxslim.pipeline.instruments import Failure, Instrument
from onnxslim.pipeline.memory import peak_mb, reset_peak
from onnxslim.pipeline.options import to_spec

_NOT_A_BUG = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS})


@dataclass(frozen=True)
class Stage:
    """One pass that ran: what it did, what it took, and the model after it (read only)."""

    pass_: Pass
    result: PassResult
    seconds: float
    peak_mb: float | None  # of the whole process while the pass ran
    model: Model
    kept: bool = True  # False when the guard undid it

    @property
    def spec(self) -> str:
        """The pass as text."""
        return str(to_spec(self.pass_))


def run_passes(
    model: Model,
    passes: Sequence[Pass],
    ctx: Context,
    instruments: Sequence[Instrument] = (),
    guard: Guard | None = None,
    done: Sequence[Stage] = (),
) -> list[Stage]:
    """Run the passes in place. Errors of the user's kind pass through; others: PassError.

    After an error the model is as it was before the pass that failed, never half edited.

    A snapshot of the model is kept after each pass; it shares the weights that did not change.
    `done`: what the first of the passes did in an earlier run, which left the model as it is now.
    """
    for pass_ in passes[len(done) :]:
        pass_.prepare(ctx)
    stages = list(done)
    for index, pass_ in enumerate(passes[len(done) :], start=len(done)):
        before = stages[-1].model if stages else ctx.original
        now = replace(ctx, applied=ctx.applied + tuple(s.pass_ for s in stages if s.kept))
        try:
            stages.append(_run_one(model, before, pass_, now, instruments, guard))
        except MemoryError:
            raise
        except Exception as error:
            ir.restore(model, before)
            if isinstance(error, OnnxSlimError) and not isinstance(error, PassError):
                raise
            if isinstance(error, OSError) and error.errno in _NOT_A_BUG:
                raise OutputError(f"{pass_.name}: {error}") from error
            failure = Failure(pass_, before, tuple(passes[index:]), error)
            raise _broken(failure, stages, instruments) from error
    return stages


def _run_one(
    model: Model,
    before: Model,
    pass_: Pass,
    ctx: Context,
    instruments: Sequence[Instrument],
    guard: Guard | None,
) -> Stage:
    for instrument in instruments:
        instrument.before(pass_, model, ctx)
    reset_peak()
    start = time.perf_counter()
    result = _inlined(model, before, pass_, ctx) if pass_.inlines else pass_.run(model, ctx)
    ctx.analyses.invalidate(result.changed)
    kept = True
    here = ctx.env.target.here  # other machines' times are not measured here
    if guard is not None and here and pass_.guarded and result.changed:
        result, kept = guard.judge(model, before, result, ctx)
    ctx.env.opened.clear()
    seconds, peak = time.perf_counter() - start, peak_mb()
    for instrument in reversed(instruments):
        instrument.after(pass_, model, ctx, result)
    after = ir.snapshot(model) if result.changed else before
    return Stage(pass_, result, seconds, peak, after, kept)


def _inlined(model: Model, before: Model, pass_: Pass, ctx: Context) -> PassResult:
    """Run a pass on the model without functions; where it changes nothing they stay."""
    calls = ir.inline_functions(model)
    if not calls:
        return pass_.run(model, ctx)
    ctx.analyses.invalidate(Aspect.ALL)
    result = pass_.run(model, ctx)
    if not result.changed:
        ir.restore(model, before)
        ctx.analyses.invalidate(Aspect.ALL)
        return result
    note = f"{pass_.name} put what functions hold in place of the {calls} nodes that call them"
    return replace(result, changed=result.changed | Aspect.STRUCTURE, notes=(*result.notes, note))


def _broken(
    failure: Failure, stages: Sequence[Stage], instruments: Sequence[Instrument]
) -> PassError:
    done = ",".join(stage.spec for stage in stages) or "no other pass"
    said = [said for i in reversed(instruments) if (said := i.failed(failure))]
    error = failure.error
    what = str(error) if isinstance(error, PassError) else f"{type(error).__name__}: {error}"
    message = f"pass '{to_spec(failure.pass_)}' failed after {done}: {what}"
    return PassError("; ".join([message, *said]))
