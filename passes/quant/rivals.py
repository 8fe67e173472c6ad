"""What `auto` makes of a language model: integers throughout, or weights alone.

Both are made, and the better one is kept. Of every other model there is one candidate.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from onnxslim import ir
from onnxslim.errors import OptionError, RuntimeUnavailable
from onnxslim.ir import Model
from onnxslim.ir.state import assign
from onnxslim.passes.quant.choose.compare import is_better
from onnxslim.passes.quant.place.known import Known
from onnxslim.passes.quant.place.sized import bytes_before
from onnxslim.passes.quant.report import Done
from onnxslim.passes.quant.schemes import by_scheme, runs
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Environment
from onnxslim.pipeline.fingerprint import fingerprint
from onnxslim.pipeline.stopwatch import sample_of
from onnxslim.runtime.decode import one_token
from onnxslim.runtime.samples import Feed

if TYPE_CHECKING:
    from onnxslim.passes.quant.quant import Quant

WEIGHTS_ALONE = (
    "quant gave weights alone {} bits, in blocks, as on {} that keeps the outputs of this language "
    "model better than quantizing its activations too"
)

BITS = (8, 4)
"""Of weights alone, the first that keeps to a `size`."""


def quantized(model: Model, ctx: Context, options: Quant, known: Known) -> Done:
    """Quantize a model in place, as the options say.

    Raises OptionError where the target does not run the scheme, RuntimeUnavailable where
    calibration samples are given and the model cannot be run.
    """
    feeds = _feeds(model, ctx.env) if options.scheme == "auto" else []
    if not feeds:
        return by_scheme(model, ctx, options, known)
    before = ir.snapshot(model)
    weights, rival, bits = _fitting(model, ctx, options)
    done = _within(model, ctx, options, known, bits is not None)
    one = model if done.count else None
    with suppress(RuntimeUnavailable):
        if bits is not None and is_better(before, one, rival, feeds, options.goal, ctx.env):
            assign(model, ir.snapshot(rival))
            ctx.analyses.invalidate(Aspect.ALL)
            where = "calibration samples" if ctx.env.calib else "made-up texts"
            return replace(weights, remarks=(*weights.remarks, WEIGHTS_ALONE.format(bits, where)))
    return done


def _within(model: Model, ctx: Context, options: Quant, known: Known, rival: bool) -> Done:
    """What the options say, in place; nothing where only the rival can be as small as asked for."""
    try:
        return by_scheme(model, ctx, options, known)
    except OptionError as error:
        if options.size is None or not rival:
            raise
        return Done(refused=(Declined("model", str(error)),))


def _fitting(model: Model, ctx: Context, options: Quant) -> tuple[Done, Model, int | None]:
    """Weights alone in the most bits with which they are no larger than asked for; no bits where
    there are none."""
    most = (options.size or 1.0) * bytes_before(model, ctx)
    done, rival = Done(), model
    for bits in BITS if options.size is not None else BITS[:1]:
        done, rival = _weights_alone(model, ctx, options, bits)
        if done.layers and ir.weight_bytes(rival) <= most:
            return done, rival, bits
    return done, rival, None


def _weights_alone(model: Model, ctx: Context, options: Quant, bits: int) -> tuple[Done, Model]:
    """What scheme weight does, and a copy of the model with it; made once for all goals that it
    meets."""
    asked = replace(options, scheme="weight", weight_bits=bits, size=None)
    done, rival = _made(model, ctx, replace(asked, goal=0.0, float_share=0.0))
    if done.db is None or done.db >= options.goal:
        return done, rival
    return _made(model, ctx, asked)


def _made(model: Model, ctx: Context, asked: Quant) -> tuple[Done, Model]:
    key = "weights alone", fingerprint(model), asked
    if key not in ctx.memory:
        before = ir.snapshot(model)
        done = by_scheme(model, ctx, asked, Known())
        ctx.memory[key] = done, ir.snapshot(model)
        ir.restore(model, before)
        ctx.analyses.invalidate(Aspect.ALL)
    return cast("tuple[Done, Model]", ctx.memory[key])


def _feeds(model: Model, env: Environment) -> list[Feed]:
    """The inputs on which a language model must not become slower: one token, and the first
    sample where there is one. Empty for other models, and for other machines than this one."""
    if not env.target.local or not runs(env.target, "weight"):
        return []
    with suppress(RuntimeUnavailable):
        token = one_token(model, sample_of(model, env))
        if token is not None:
            return [token, env.calib[0]] if env.calib else [token]
    return []
