"""Scheme weight: choose a grid for each layer, round to it, store the codes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from onnxslim import ir
from onnxslim.analyses.columns import Tap
from onnxslim.analyses.layer_stats import LayerStats
from onnxslim.analyses.moments import Moments
from onnxslim.errors import EditError
from onnxslim.ir import Array, Editor
from onnxslim.passes.quant.rounding import round_to_grid
from onnxslim.passes.quant.weight_only.grid import Grid, fitted
from onnxslim.passes.quant.weight_only.layers import (
    Stored,
    WeightLayer,
    find_layers,
    rewrite,
    store,
)
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Layer

OPSET = 21
"""The first in which DequantizeLinear has blocks and 4-bit codes."""

WIDEST = 4096
"""Inputs of a layer up to which its second moments are collected: 128 MB of float64."""


def quantize_weights(
    model: ir.Model, ctx: Context, bits: int, block: int, excluded: Collection[str]
) -> tuple[list[Layer], list[Declined]]:
    """Quantize the weights of every fitting layer of a model in place; the rest with reasons.

    With calibration samples and fewer than 8 bits, codes are rounded by GPTQ (see rounding.py) on
    the second moments of the float inputs; else to the nearest. Weights that several layers read
    are stored once.
    """
    try:
        ir.raise_opset(model, OPSET)
    except EditError as error:
        return [], [Declined("model", f"blocks of weights need opset {OPSET}: {error}")]
    ctx.analyses.invalidate(Aspect.ALL)
    layers, declined = find_layers(model, block, excluded)
    moments = _moments(layers, ctx) if bits < 8 else {}
    editor, done, known = Editor(model), list[Layer](), dict[tuple[object, ...], Stored]()
    for layer in layers:
        row = Layer(ir.label(layer.node), ir.op(layer.node), _action(layer, bits, moments))
        key = (layer.held, layer.flip, layer.alpha, editor.scope_of(layer.held))
        if key not in known:
            stored = store(editor, layer, *_codes(layer, bits, moments.get(layer.tap)))
            if isinstance(stored, str):
                declined.append(Declined(row.node, stored))
                continue
            known[key] = stored
        rewrite(editor, layer, known[key])
        done.append(row)
    editor.remove_dead()
    return done, declined


def _action(layer: WeightLayer, bits: int, moments: Mapping[Tap, Moments]) -> str:
    how = "second-order" if layer.tap in moments else "nearest"
    return f"weight-only, {bits} bits in blocks of {layer.block}, {how} rounding"


def _moments(layers: list[WeightLayer], ctx: Context) -> Mapping[Tap, Moments]:
    if not ctx.env.calib:
        return {}
    taps = [layer.tap for layer in layers if layer.rows().shape[1] <= WIDEST]
    return ctx.analyses.get(LayerStats(taps=tuple(dict.fromkeys(taps)))).moments


def _codes(layer: WeightLayer, bits: int, moments: Moments | None) -> tuple[Array, Grid]:
    """Codes [out, d] and their grid. Without a bias to take it up, the mean counts as well."""
    rows = layer.rows()
    if moments is None:
        grid = fitted(rows, bits, layer.block)
        return grid.codes(rows), grid
    second = moments.second
    grid = fitted(rows, bits, layer.block, np.diagonal(second[0]))
    zero = grid.spread(grid.zero)[None]
    whole = round_to_grid(rows[None], grid.spread(grid.scale)[None], second, -zero, grid.top - zero)
    return whole[0] + zero[0], grid
