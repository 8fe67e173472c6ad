"""What each scheme does, as a table: scheme -> function that quantizes a prepared model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxslim import ir
from onnxslim.errors import EditError, OptionError, RuntimeUnavailable
from onnxslim.ir import Editor, Model
from onnxslim.ir.state import assign
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.blind import is_better
from onnxslim.passes.quant.choose.search import Alternatives
from onnxslim.passes.quant.dynamic import quantize_dynamic
from onnxslim.passes.quant.embeddings import quantize_embeddings
from onnxslim.passes.quant.fallback import dynamic_instead
from onnxslim.passes.quant.half import Half, store_half
from onnxslim.passes.quant.islands import compute_half
from onnxslim.passes.quant.place.known import Known
from onnxslim.passes.quant.place.protection import Limit
from onnxslim.passes.quant.prepare.canonical import canonicalize
from onnxslim.passes.quant.prepare.equalize import equalize
from onnxslim.passes.quant.prepare.gates import GATED, GATES_SINCE
from onnxslim.passes.quant.report import Done
from onnxslim.passes.quant.rewrite.packed import PACKED_BITS, PACKED_SINCE, pack, why_not_packed
from onnxslim.passes.quant.selection import excluded_names
from onnxslim.passes.quant.static import Goals, quantize_static
from onnxslim.passes.quant.uncovered import uncovered
from onnxslim.passes.quant.weight_only.scheme import WeightChoices, quantize_weights
from onnxslim.passes.quant.weight_only.unfused import write_unfused
from onnxslim.passes.quant.weights.layers import FEW_BITS
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined
from onnxslim.pipeline.stopwatch import sample_of
from onnxslim.runtime.decode import one_token
from onnxslim.runtime.samples import Feed
from onnxslim.targets import Target

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


Scheme = Callable[[Job, Done], Done]
"""Quantizes the job's model in place; takes what is done already, and returns that with its own."""


def quantized(model: Model, ctx: Context, options: Quant, known: Known) -> Done:
    """Prepare a model and let its scheme quantize it, in place.

    Raises OptionError where the target does not run the scheme.
    """
    ruled_out = ctx.env.target.own if options.portable else {}
    if options.portable:
        ctx = replace(ctx, env=replace(ctx.env, target=ctx.env.target.portable()))
    _check_target(ctx.env.target, options.scheme)
    try:
        ir.raise_opset(model, _min_opset(ctx.env.target, options.scheme))
    except EditError as error:
        return Done(refused=(Declined("model", str(error)),))
    if options.scheme == "int8" and options.weight_bits <= PACKED_BITS:
        with suppress(EditError):  # the weights lie in bytes then
            ir.raise_opset(model, PACKED_SINCE)
    there = _own(model, ctx.env.target)
    operators = _gates(model, ctx.env.target, options.scheme) | _fused(ctx.env.target, options)
    folded = canonicalize(Editor(model), operators, named=bool(options.skip)).count
    equalized = equalize(Editor(model), options.weight_bits) if _equalizes(options) else 0
    ctx.analyses.invalidate(Aspect.ALL)
    excluded = excluded_names(model, options.ops, options.skip)
    job = Job(model, ctx, options, excluded, known)
    blind = "" if ctx.env.calib else _blind(options)
    done = Done(folded=folded, equalized=equalized, blind=blind)
    for scheme in SCHEMES[options.scheme]:
        done = scheme(job, done)
    refused = (*done.refused, *uncovered(model, ctx.env.target, ruled_out))
    return replace(done, refused=refused, own=(*done.own, *(_own(model, ctx.env.target) - there)))


def _equalizes(options: Quant) -> bool:
    """Whether layers are to be scaled: those that get one scale each gain most by it."""
    wanted = options.equalize == "on" or (options.equalize == "auto" and not options.per_channel)
    return wanted and _static in SCHEMES[options.scheme]


def _own(model: Model, target: Target) -> Counter[str]:
    """The operators of the target itself that a model has."""
    own = frozenset(target.own.values())
    return Counter(ir.op(node) for node in ir.nodes(model) if ir.op(node) in own)


def _gates(model: Model, target: Target, scheme: str) -> frozenset[str]:
    """The operators with a gate that are going to be integers; the opset is raised for them."""
    found = GATED.keys() & target.static.keys() if _static in SCHEMES[scheme] else frozenset[str]()
    if found and any(ir.op(node) == "HardSigmoid" for node in ir.nodes(model)):
        with suppress(EditError):  # the HardSigmoid stays then
            ir.raise_opset(model, GATES_SINCE)
    return frozenset(found)


def _fused(target: Target, options: Quant) -> frozenset[str]:
    """What is fused around MatMul where that is quantized: `Attention`, or that of a decoder."""
    steps = SCHEMES[options.scheme]
    names = ["Attention"] if _static in steps or _dynamic in steps else []
    names += ["CausalAttention"] if _weight in steps else []
    wanted = not options.ops or "MatMul" in options.ops
    return frozenset(target.own[n] for n in names if wanted and n in target.own)


def _check_target(target: Target, scheme: str) -> None:
    there = ", ".join(name for name in SCHEMES if _runs(target, name))
    if not _runs(target, scheme):
        raise OptionError(
            f"quant: scheme={scheme}: the target '{target.name}' does not run it; "
            f"take one of {there}, or another --target"
        )


def _runs(target: Target, scheme: str) -> bool:
    """Static schemes are those of the target's forms; others are, unless it says which it runs.

    `auto` takes of its steps what the target has, so int8 is enough.
    """
    scheme = "int8" if scheme == "auto" else scheme
    if scheme in STATIC and scheme not in target.forms:
        return False
    return target.schemes is None or scheme in target.schemes


def _min_opset(target: Target, scheme: str) -> int:
    form = target.forms.get("int8" if scheme == "auto" else scheme)
    return target.form.min_opset if form is None else form.min_opset


def _alone(job: Job, done: Done) -> Done:
    """Weights alone, for a language model without samples whose outputs they keep better than the
    other steps do, and that is no slower with them."""
    token = _blind_token(job)
    if token is None:
        return done
    one, other = (replace(job, model=ir.snapshot(job.model)) for _ in range(2))
    _dynamic(one, _static(one, done))
    found = _weight(other, done)
    with suppress(RuntimeUnavailable):
        models = job.model, one.model, other.model
        if found.layers and is_better(*models, token, job.options.goal, job.ctx.env):
            assign(job.model, other.model)
            return replace(found, remarks=(*found.remarks, WEIGHTS_ALONE), settled=True)
    return done


def _blind_token(job: Job) -> Feed | None:
    """The feed of one token where a language model of this machine has no samples."""
    env = job.ctx.env
    if env.calib or not env.target.local or not _runs(env.target, "weight"):
        return None
    with suppress(RuntimeUnavailable):
        return one_token(job.model, sample_of(job.model, env))
    return None


def _static(job: Job, done: Done) -> Done:
    if done.settled:
        return done
    options = job.options
    target = job.ctx.env.target.written(options.scheme)
    ctx = replace(job.ctx, env=replace(job.ctx.env, target=target))
    count = len(ctx.env.calib) if ctx.env.calib else 0
    goals = Goals(
        tuple(_alternatives(options)),
        Limit(options.goal, options.float_share),
        options.scheme == "auto",
        options.wide_share,
        options.rounding == "sequential" or (_fits(options) and count >= ENOUGH),
    )
    choices = replace(_choices(options, job.excluded), samples=count)
    return replace(done, static=quantize_static(job.model, ctx, choices, goals, job.known))


def _dynamic(job: Job, done: Done) -> Done:
    if done.settled:
        return done
    if done.static is not None and done.static.ruined:
        layers, declined = dynamic_instead(
            job.model, job.ctx, job.excluded, job.options.per_channel
        )
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


def _packed(job: Job, done: Done) -> Done:
    """Weights of 4 bits stored as int4, where this machine's runtime takes them."""
    plan = None if done.static is None else done.static.plan
    if plan is None or job.options.weight_bits > PACKED_BITS:
        return done
    local = job.ctx.env.target.local
    why = why_not_packed(job.model) if local else "only ONNX Runtime is known to fuse them"
    if why is not None:
        return replace(done, remarks=(*done.remarks, f"weights of 4 bits lie in bytes: {why}"))
    return replace(done, packed=pack(Editor(job.model)))


def _embeddings(job: Job, done: Done) -> Done:
    if not job.ctx.env.target.local:
        return done  # a Gather of integers is known to be as fast in ONNX Runtime alone
    layers, declined = quantize_embeddings(Editor(job.model), job.excluded)
    return replace(done, layers=(*done.layers, *layers), refused=(*done.refused, *declined))


def _fp16(job: Job, done: Done) -> Done:
    if "fp16" not in job.ctx.env.target.half:
        return replace(_stored("fp16", job, done), remarks=(STORED,))
    layers, declined = compute_half(job.model, job.ctx, job.excluded, job.options.goal)
    return replace(done, layers=(*done.layers, *layers), refused=(*done.refused, *declined))


def _bf16(job: Job, done: Done) -> Done:
    return replace(_stored("bf16", job, done), remarks=(STORED,))


def _stored(half: Half, job: Job, done: Done) -> Done:
    layers, declined = store_half(Editor(job.model), half, job.excluded)
    return replace(done, layers=(*done.layers, *layers), refused=(*done.refused, *declined))


def _weight(job: Job, done: Done) -> Done:
    options = job.options
    choices = WeightChoices(
        options.weight_bits, options.block_size, options.table_bits, options.weight_form
    )
    with suppress(RuntimeUnavailable):  # where nothing can be timed anyway
        done = replace(done, timed_on=one_token(job.model, sample_of(job.model, job.ctx.env)))
    layers, declined = quantize_weights(job.model, job.ctx, choices, job.excluded)
    if layers and not options.portable and job.ctx.env.target.local:
        with suppress(RuntimeUnavailable):
            if write_unfused(job.model, job.ctx.env):
                done = replace(done, own=(*done.own, "com.microsoft::MatMulNBits"))
    return replace(done, layers=(*done.layers, *layers), refused=(*done.refused, *declined))


WEIGHTS_ALONE = (
    "quant had no calibration samples: weights alone have 8 bits, in blocks, as on made-up texts "
    "that keeps the outputs of this language model better than quantizing its inputs as they come"
)

STORED = (
    "quant stored weights in 16 bits and computes in float32, as the target gains no speed by "
    "computing in 16 bits: the file is smaller, the speed as before"
)


def _blind(options: Quant) -> str:
    """What a scheme does less well without samples; empty where they change nothing."""
    return "" if (options.scheme, options.weight_bits) == ("weight", 8) else BLIND[options.scheme]


_STATED = "only what BatchNormalization tells the ranges of is quantized"

BLIND: Mapping[str, str] = {
    "auto": "MatMul and Gemm quantize their inputs while they run, Conv only where "
    "BatchNormalization tells its range",
    "int8": _STATED,
    "int16": _STATED,
    "fp8": _STATED,
    "dynamic": "",  # needs none
    "weight": "codes are the nearest ones, not fitted to what the layers read",
    "fp16": "",
    "bf16": "",
}
"""By scheme, what it means that there are none."""


RUINED = (
    "quant found no fixed ranges that keep the outputs: MatMul and Gemm quantize their inputs "
    "while they run"
)


SCHEMES: Mapping[str, tuple[Scheme, ...]] = {
    "auto": (_alone, _static, _dynamic, _embeddings),
    "int8": (_static, _embeddings, _packed),
    "int16": (_static,),
    "fp8": (_static,),
    "dynamic": (_dynamic, _embeddings),
    "weight": (_weight, _embeddings),
    "fp16": (_fp16,),
    "bf16": (_bf16,),
}
"""The steps of each scheme, in order."""

STATIC = ("int8", "int16", "fp8")
"""The schemes for which a target needs a form."""


def _choices(options: Quant, excluded: frozenset[str]) -> Choices:
    """Where the search starts."""
    return Choices(
        method="mse" if options.ranges == "auto" else options.ranges,
        percentile=options.percentile,
        bias_correction=options.bias_correction,
        smooth=options.smooth == "on",
        second_order=options.rounding in ("second_order", "sequential") or _fits(options),
        per_channel=options.per_channel,
        bits=options.weight_bits,
        excluded=excluded,
    )


ENOUGH = 256
"""Samples from which layers are rounded one after the other by themselves. With 64 views of 8
photos an EfficientNet-Lite0 lost 0.4 dB on other photos by it; with 512 images a ResNet gained 1.8.
"""


def _fits(options: Quant) -> bool:
    """Whether the bits are so few that the nearest integers are never tried."""
    return options.rounding == "auto" and options.weight_bits <= FEW_BITS


RANGES: tuple[Mapping[str, Any], ...] = (
    {"method": "minmax"},
    {"method": "output"},
    {"method": "percentile", "percentile": 99.99},
)
"""What `ranges=auto` tries beside the least squared error. Entropy is not among them: on every
trained model at hand it was worse, as it clips what 8 bits still hold well."""


def _alternatives(options: Quant) -> Iterable[Alternatives]:
    """The steps of the search: what the options leave open."""
    if options.ranges == "auto":
        yield lambda now: [replace(now, **tried) for tried in RANGES]
    if options.smooth == "auto":
        yield lambda now: [replace(now, smooth=True)]
    if options.rounding == "auto" and not _fits(options):
        yield lambda now: [replace(now, second_order=True)]
