"""Models that `quant` has quantized already: float again before, quantized again after."""

from __future__ import annotations

from onnxslim.ir import Editor, Model
from onnxslim.passes.quant.remove import to_float
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Pass, PassResult


def quantizers(ctx: Context) -> list[Pass]:
    """The quantizations that ran before, in order."""
    return [done for done in ctx.applied if done.name == "quant"]


def float_again(model: Model, ctx: Context) -> None:
    """Take off what our own quantization inserted, if it ran."""
    if quantizers(ctx):
        to_float(model, Editor(model))
        ctx.analyses.invalidate(Aspect.ALL)


def quantize_again(model: Model, ctx: Context) -> PassResult:
    """Quantize with the same options as before, on statistics of the factorized model."""
    found = quantizers(ctx)
    if not found:
        return PassResult()
    ctx.analyses.invalidate(Aspect.ALL)
    return found[-1].run(model, ctx)
