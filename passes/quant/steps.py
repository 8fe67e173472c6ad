"""The steps that schemes are made of: each quantizes a prepared model in place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Editor, Model
from onnxslim.passes.quant.asked import ENOUGH, alternatives, first_choices
from onnxslim.passes.quant.choose.compare import TEXTS
from onnxslim.passes.quant.choose.judge import Judge
from onnxslim.passes.quant.choose.protected import Limits, quantize_protected
from onnxslim.passes.quant.dynamic import quantize_dynamic
from onnxslim.passes.quant.embeddings import quantize_embeddings
from onnxslim.passes.quant.fallback import without_ranges
from onnxslim.passes.quant.half import Half, store_half
from onnxslim.passes.quant.islands import compute_half
from onnxslim.passes.quant.place.known import Known
from onnxslim.passes.quant.place.protection import Limit
from onnxslim.passes.quant.place.sized import Budget
from onnxslim.passes.quant.report import Done
from onnxslim.passes.quant.rewrite.packed import PACKED_BITS, PACKED_SINCE, pack, why_not_packed
from onnxslim.passes.quant.rewrite.plan import Plan
from onnxslim.passes.quant.static import Goals, quantize_static
from onnxslim.passes.quant.weight_only.scheme import WeightChoices, quantize_weights
from onnxslim.passes.quant.weight_only.unfused import write_unfused
from onnxslim.pipeline.base import Context, Declined, Layer
from onnxslim.pipeline.stopwatch import sample_of
from onnxslim.runtime.decode import one_token
from onnxslim.runtime.synthesize import synthesize

if TYPE_CHECKING:
    from onnxslim.passes.quant.quant import Quant


@dataclass(frozen=True)
class Job:
    """A prepared model (opset raised, affine maps folded), and what was asked for."""

    model: Model
    ctx: Context
    options: Quant
    excluded: frozenset[str]  # first outputs of the nodes that stay in float
    known: Known
    budget: Budget | None = None  # of bytes


Step = Callable[[Job, Done], Done]
"""Quantizes the job's model in place; takes what is done already, and returns that with its own."""


def static(job: Job, done: Done) -> Done:
    """Fixed ranges, which calibration samples or BatchNormalization tell."""
    options = job.options
    target = job.ctx.env.target.written(options.scheme)
    ctx = replace(job.ctx, env=replace(job.ctx.env, target=target))
    count, timed = len(ctx.env.calib) if ctx.env.calib else 0, options.scheme == "auto"
    goals = Goals(
        tuple(alternatives(options)),
        Limit(options.goal, options.aim if timed else 0.0, options.float_share),
        timed,
        options.wide_share,
        job.budget,
        target.local and (ir.opset(job.model) or 0) >= PACKED_SINCE,
        options.rounding == "sequential",
        options.rounding == "auto" and count >= ENOUGH,
    )
    choices = replace(first_choices(options, job.excluded), samples=count)
    return replace(done, static=quantize_static(job.model, ctx, choices, goals, job.known))


def dynamic(job: Job, done: Done) -> Done:
    """MatMul and Gemm that quantize their input as it comes: where `static` ruins the outputs,
    inside of subgraphs, and everywhere without samples."""
    if done.static is not None and done.static.ruined:
        layers, declined = without_ranges(job.model, job.ctx, job.excluded, job.options.per_channel)
        done = replace(done, remarks=(*done.remarks, RUINED) if layers else done.remarks)
        return replace(done, layers=(*done.layers, *layers), refused=(*done.refused, *declined))
    everywhere = job.options.scheme == "dynamic" or not job.ctx.env.calib
    layers, declined = quantize_dynamic(
        Editor(job.model),
        job.ctx.env.target,
        job.excluded,
        job.options.per_channel,
        everywhere,
    )
    return replace(done, layers=(*done.layers, *layers), refused=(*done.refused, *declined))


def packed(job: Job, done: Done) -> Done:
    """Weights of 4 bits stored as int4, where this machine's runtime takes them."""
    plan = None if done.static is None else done.static.plan
    if plan is None or _fewest(plan) > PACKED_BITS:
        return done
    local = job.ctx.env.target.local
    why = why_not_packed(job.model) if local else "only ONNX Runtime is known to fuse them"
    if why is not None:
        return replace(done, remarks=(*done.remarks, f"weights of 4 bits lie in bytes: {why}"))
    return replace(done, packed=pack(Editor(job.model)))


def _fewest(plan: Plan) -> int:
    return min((layer.weight.bits for layer in plan.layers.values()), default=8)


def embeddings(job: Job, done: Done) -> Done:
    """Tables that a Gather looks up, as integers."""
    if not job.ctx.env.target.local:
        return done  # a Gather of integers is known to be as fast in ONNX Runtime alone
    layers, declined = quantize_embeddings(Editor(job.model), job.excluded)
    return replace(done, layers=(*done.layers, *layers), refused=(*done.refused, *declined))


def fp16(job: Job, done: Done) -> Done:
    """Arithmetic in float16, or only weights where the target gains nothing by it."""
    if "fp16" not in job.ctx.env.target.half:
        return replace(_stored("fp16", job, done), remarks=(STORED,))
    layers, declined = compute_half(job.model, job.ctx, job.excluded, job.options.goal)
    return replace(done, layers=(*done.layers, *layers), refused=(*done.refused, *declined))


def bf16(job: Job, done: Done) -> Done:
    """Weights in bfloat16."""
    return replace(_stored("bf16", job, done), remarks=(STORED,))


def _stored(half: Half, job: Job, done: Done) -> Done:
    layers, declined = store_half(Editor(job.model), half, job.excluded)
    return replace(done, layers=(*done.layers, *layers), refused=(*done.refused, *declined))


def weight(job: Job, done: Done) -> Done:
    """Weights alone, in blocks."""
    options, kept = job.options, job.ctx.env.target.blocks
    block = kept.nearest(options.block_size)
    if block != options.block_size:
        remark = BLOCKS.format(block, job.ctx.env.target.name)
        done = replace(done, remarks=(*done.remarks, remark))
    form = "signed" if kept.symmetric else str(options.weight_form)
    choices = WeightChoices(options.weight_bits, block, options.table_bits, form, kept)
    with suppress(RuntimeUnavailable):  # where nothing can be timed anyway
        done = replace(done, timed_on=one_token(job.model, sample_of(job.model, job.ctx.env)))
    layers, declined, db = _judged(job, choices, language=done.timed_on is not None)
    done = replace(done, db=db)
    if layers and not options.portable and job.ctx.env.target.local:
        with suppress(RuntimeUnavailable):
            write_unfused(job.model, job.ctx.env)
    return replace(done, layers=(*done.layers, *layers), refused=(*done.refused, *declined))


def _judged(
    job: Job, choices: WeightChoices, language: bool
) -> tuple[list[Layer], list[Declined], float | None]:
    """Weights in codes, with as much in more bits as the goal takes where samples, or made-up texts
    for a language model, show it."""
    options, env = job.options, job.ctx.env
    wide = options.wide_share if choices.kept.bits == 8 else 0.0
    limits = Limits(options.goal, wide, options.float_share)
    before = ir.snapshot(job.model)
    with suppress(RuntimeUnavailable):
        samples = env.calib
        if samples is None and language:
            samples = synthesize(job.model, TEXTS, env.seed, env.threads)
        if samples is not None:
            judge = Judge(before, samples, env)
            found = quantize_protected(job.model, job.ctx, choices, job.excluded, limits, judge)
            return found.layers, found.declined, found.db
    ir.restore(job.model, before)
    return *quantize_weights(job.model, job.ctx, choices, job.excluded), None


BLOCKS = "quant gave a scale to each {} inputs, as '{}' takes no blocks of the size asked for"


STORED = (
    "quant stored weights in 16 bits and computes in float32, as the target gains no speed by "
    "computing in 16 bits: the file is smaller, the speed as before"
)


RUINED = (
    "quant found no fixed ranges that keep the outputs: MatMul and Gemm quantize their inputs "
    "while they run"
)
