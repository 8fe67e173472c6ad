"""What each scheme does, as a table of steps, and what they need of a model and of a target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxslim import ir
from onnxslim.errors import EditError, OptionError
from onnxslim.ir import Editor, Model
from onnxslim.passes.quant import steps
from onnxslim.passes.quant.contrib import DOMAIN
from onnxslim.passes.quant.place.equal import transformed
from onnxslim.passes.quant.place.fitted import Fitted
from onnxslim.passes.quant.place.known import Known
from onnxslim.passes.quant.place.sized import Budget, bytes_before
from onnxslim.passes.quant.prepare.canonical import canonicalize
from onnxslim.passes.quant.prepare.gates import GATED, GATES_SINCE
from onnxslim.passes.quant.report import Done
from onnxslim.passes.quant.rewrite.packed import PACKED_BITS, PACKED_SINCE
from onnxslim.passes.quant.selection import excluded_names
from onnxslim.passes.quant.uncovered import uncovered
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined
from onnxslim.targets import Target

if TYPE_CHECKING:
    from onnxslim.passes.quant.quant import Quant


def by_scheme(model: Model, ctx: Context, options: Quant, known: Known) -> Done:
    """Prepare a model and let its scheme quantize it, in place.

    Raises OptionError where the target does not run the scheme.
    """
    ruled_out = ctx.env.target.own if options.portable else {}
    if options.portable:
        ctx = replace(ctx, env=replace(ctx.env, target=ctx.env.target.portable()))
    _check_target(ctx.env.target, options.scheme)
    _check_blocks(ctx.env.target, options)
    budget = _budget(model, ctx, options)
    try:
        ir.raise_opset(model, _min_opset(ctx.env.target, options.scheme))
    except EditError as error:
        return Done(refused=(Declined("model", str(error)),))
    if steps.packed in SCHEMES[options.scheme] and (budget or options.weight_bits <= PACKED_BITS):
        with suppress(EditError):  # the weights lie in bytes then
            ir.raise_opset(model, PACKED_SINCE)
    there = _own(model)
    operators = _gates(model, ctx.env.target, options.scheme) | _fused(ctx.env.target, options)
    folded = canonicalize(Editor(model), operators, named=bool(options.skip)).count
    excluded = excluded_names(model, options.ops, options.skip)
    statically = steps.static in SCHEMES[options.scheme]
    equal = transformed(model, ctx, options, excluded, known) if statically else Fitted()
    ctx.analyses.invalidate(Aspect.ALL)
    job = steps.Job(model, ctx, options, excluded, known, budget)
    blind = "" if ctx.env.calib else _blind(options)
    done = Done(folded=folded, equal=equal, blind=blind)
    for step in SCHEMES[options.scheme]:
        done = step(job, done)
    refused = (*done.refused, *uncovered(model, ctx.env.target, ruled_out))
    return replace(done, refused=refused, own=tuple(_own(model) - there))


def _budget(model: Model, ctx: Context, options: Quant) -> Budget | None:
    if options.size is None:
        return None
    if steps.packed not in SCHEMES[options.scheme]:
        raise OptionError(
            f"quant: size={options.size:g} with scheme={options.scheme}: sizes are chosen by "
            "scheme=auto and scheme=int8"
        )
    if not ctx.env.calib:
        raise OptionError(
            f"quant: size={options.size:g}: which layers get few bits is chosen on samples; give "
            "--calib"
        )
    return Budget(options.size, bytes_before(model, ctx), options.rounding != "nearest")


def _own(model: Model) -> Counter[str]:
    """The operators of ONNX Runtime itself that a model has."""
    return Counter(ir.op(node) for node in ir.nodes(model) if node.domain == DOMAIN)


def _gates(model: Model, target: Target, scheme: str) -> frozenset[str]:
    """The operators with a gate that are going to be integers; the opset is raised for them."""
    if steps.static not in SCHEMES[scheme]:
        return frozenset()
    found = GATED.keys() & target.static.keys()
    if found and any(ir.op(node) == "HardSigmoid" for node in ir.nodes(model)):
        with suppress(EditError):  # the HardSigmoid stays then
            ir.raise_opset(model, GATES_SINCE)
    return frozenset(found)


def _fused(target: Target, options: Quant) -> frozenset[str]:
    """What is fused around MatMul where that is quantized: `Attention`, or that of a decoder."""
    own = SCHEMES[options.scheme]
    names = ["Attention"] if steps.static in own or steps.dynamic in own else []
    names += ["CausalAttention"] if steps.weight in own else []
    wanted = not options.ops or "MatMul" in options.ops
    return frozenset(target.own[n] for n in names if wanted and n in target.own)


def _check_target(target: Target, scheme: str) -> None:
    there = ", ".join(name for name in SCHEMES if runs(target, name))
    if not runs(target, scheme):
        raise OptionError(
            f"quant: scheme={scheme}: the target '{target.name}' does not run it; "
            f"take one of {there}, or another --target"
        )


def _check_blocks(target: Target, options: Quant) -> None:
    if options.scheme != "weight":
        return
    if options.weight_bits > target.blocks.bits:
        raise OptionError(
            f"quant: weight_bits={options.weight_bits}: the target '{target.name}' takes weights "
            f"alone in at most {target.blocks.bits} bits"
        )
    if options.weight_form == "nbits" and not target.local:
        raise OptionError(
            f"quant: weight_form=nbits: MatMulNBits is ONNX Runtime's own, and the target is "
            f"'{target.name}'; take weight_form=standard"
        )


def runs(target: Target, scheme: str) -> bool:
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


SCHEMES: Mapping[str, tuple[steps.Step, ...]] = {
    "auto": (steps.static, steps.dynamic, steps.embeddings, steps.packed),
    "int8": (steps.static, steps.embeddings, steps.packed),
    "int16": (steps.static,),
    "fp8": (steps.static,),
    "dynamic": (steps.dynamic, steps.embeddings),
    "weight": (steps.weight, steps.embeddings),
    "fp16": (steps.fp16,),
    "bf16": (steps.bf16,),
}
"""The steps of each scheme, in order."""

STATIC = ("int8", "int16", "fp8")
"""The schemes for which a target needs a form."""
