"""A model that computes in float16, but for the nodes whose numbers would leave its range.

An island is a node that keeps float32 between Casts. With calibration samples these are the nodes
whose inputs or outputs, or the powers of them that they add up inside, come near the largest
float16; without, and in subgraphs, all operators of `POWERS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from onnxslim import ir
from onnxslim.analyses.layer_stats import LayerStats
from onnxslim.errors import ConfigError, RuntimeUnavailable
from onnxslim.ir import DataType, Model, Node
from onnxslim.ir.floats import convert_floats
from onnxslim.passes.quant.choose.judge import Judge
from onnxslim.passes.quant.selection import first_output
from onnxslim.pipeline.base import Context, Declined, Layer

LIMIT = float(np.finfo(np.float16).max) / 2
"""Magnitudes above it are too near to 65504: other samples may well reach twice as far."""

POWERS: Mapping[str, int] = {
    "Exp": 1,
    "InstanceNormalization": 2,
    "GroupNormalization": 2,
    "LayerNormalization": 2,
    "LpNormalization": 2,
    "Pow": 2,
    "ReduceL1": 1,
    "ReduceL2": 2,
    "ReduceLogSumExp": 1,
    "ReduceMean": 1,
    "ReduceProd": 1,
    "ReduceSum": 1,
    "ReduceSumSquare": 2,
    "RMSNormalization": 2,
    "Reciprocal": 1,
    "Softplus": 1,
}
"""Operators that may leave the range although their inputs do not, and the power of the inputs
that they compute inside."""


def compute_half(
    model: Model, ctx: Context, excluded: frozenset[str], goal_db: float
) -> tuple[list[Layer], list[Declined]]:
    """Let the model compute in float16 in place; untouched where that cannot be done.

    The nodes of `excluded` (names of first outputs) are islands too. With calibration samples the
    result must keep `goal_db` of its outputs, as ONNX Runtime computes them.
    """
    keep = {node: why for node in ir.nodes(model) if (why := _named(node, excluded))}
    keep |= dict(_islands(model, _reaches(model, ctx)))
    declined = [Declined(ir.label(node), why) for node, why in keep.items()]
    rows = [
        Layer(ir.label(node), ir.op(node), "float16")
        for node in ir.nodes(model)
        if node not in keep and ir.op(node) not in ("Constant", "Identity")
    ]
    before = ir.snapshot(model)
    try:
        changed = convert_floats(model, DataType.FLOAT16, tuple(keep))
        reason = _spoiled(before, model, ctx, goal_db) if changed else "it holds no float32"
    except ConfigError as error:
        reason = str(error)
    if reason is None:
        return rows, declined
    ir.restore(model, before)
    return [], [Declined("model", reason)]


def _named(node: Node, excluded: frozenset[str]) -> str | None:
    return "kept in float32 by the options ops and skip" if first_output(node) in excluded else None


def _reaches(model: Model, ctx: Context) -> Mapping[str, float]:
    """The largest magnitude of each float tensor of the main graph; empty without samples."""
    if not ctx.env.calib:
        return {}
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    names = tuple(str(v.name) for v in values if v.name and v.dtype in (None, DataType.FLOAT))
    stats = ctx.analyses.get(LayerStats(tensors=names))
    found = {name: max(abs(seen.min), abs(seen.max)) for name, seen in stats.tensors.items()}
    return found | {name: np.inf for name, why in stats.missing.items() if "infinity" in why}


def _islands(model: Model, reaches: Mapping[str, float]) -> Iterator[tuple[Node, str]]:
    for node in ir.nodes(model):
        power = POWERS.get(ir.op(node))
        known = [reaches[str(v.name)] for v in node.inputs if v is not None and v.name in reaches]
        made = [reaches[str(v.name)] for v in node.outputs if v.name in reaches]
        if not made:
            if power is not None:
                yield node, f"kept in float32: {ir.op(node)} of unknown numbers may overflow"
            continue
        reach = max([*made, *known, *(magnitude ** (power or 1) for magnitude in known)])
        if reach > LIMIT:
            yield node, f"kept in float32: its numbers reach {reach:.3g}, float16 ends at 65504"


def _spoiled(before: Model, after: Model, ctx: Context, goal_db: float) -> str | None:
    """Why the result cannot be used, if so."""
    if not ctx.env.calib:
        return None
    try:
        db = Judge(before, ctx.env.calib, ctx.env).sqnr_db(after)
    except RuntimeUnavailable as error:
        return f"ONNX Runtime does not run it in float16: {error}"
    if db < goal_db:
        return f"in float16 its outputs keep {db:.1f} dB, less than goal={goal_db:g}"
    return None
