"""What is tried where fixed ranges ruin the outputs: layers that quantize their input as it comes,
then weights alone.

A tensor whose size differs much from sample to sample has no range that suits all of them, and one
whose rows differ much has none in a run either.
"""

from __future__ import annotations

from collections.abc import Collection

from onnxslim import ir
from onnxslim.ir import Editor, Model
from onnxslim.passes.quant.choose.judge import FLOOR_DB, Judge
from onnxslim.passes.quant.dynamic import quantize_dynamic
from onnxslim.passes.quant.selection import first_output
from onnxslim.passes.quant.weight_only.alone import write_alone, writes_alone
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Layer


def without_ranges(
    model: Model, ctx: Context, excluded: Collection[str], per_channel: bool
) -> tuple[list[Layer], list[Declined]]:
    """Make every MatMul and Gemm dynamic, in place, or if that ruins the outputs too, their weights
    alone integers.

    Judged on calibration samples; the model is as before where nothing is kept.
    """
    assert ctx.env.calib is not None
    judge = Judge(model, ctx.env.calib, ctx.env)
    before = ir.snapshot(model)
    layers, declined = quantize_dynamic(Editor(model), ctx.env.target, excluded, per_channel)
    db = judge.sqnr_db(model) if layers else 0.0
    if not layers or db >= FLOOR_DB:
        return layers, declined
    ir.restore(model, before)
    ctx.analyses.invalidate(Aspect.ALL)
    if writes_alone(ctx.env.target):
        names = {first_output(node) for node in model.graph} - set(excluded)
        alone = write_alone(Editor(model), names)
        if alone and judge.sqnr_db(model) >= FLOOR_DB:
            return alone, declined
        ir.restore(model, before)
    why = f"neither fixed nor dynamic int8 keeps the outputs above {FLOOR_DB:g} dB ({db:.1f} dB)"
    return [], [*(Declined(row.node, why) for row in layers), *declined]
