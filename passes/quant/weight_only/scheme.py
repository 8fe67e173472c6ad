"""Scheme weight: choose a grid for each layer, round to it, store the codes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from onnxslim import ir
from onnxslim.analyses.columns import Tap
from onnxslim.analyses.layer_stats import LayerStats
from onnxslim.analyses.moments import Moments
from onnxslim.errors import EditError
from onnxslim.ir import Array, Editor
from onnxslim.passes.quant.choose.predicted import rows_db
from onnxslim.passes.quant.weight_only.forms import Form, Stored
from onnxslim.passes.quant.weight_only.grid import Grid, fitted
from onnxslim.passes.quant.weight_only.layers import WeightLayer, find_layers
from onnxslim.passes.quant.weight_only.nbits import NBITS
from onnxslim.passes.quant.weight_only.refine import fit_codes
from onnxslim.passes.quant.weight_only.rewrite import put_layer, put_tables
from onnxslim.passes.quant.weight_only.standard import STANDARD
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Layer

FORMS: Mapping[str, Form] = {"standard": STANDARD, "nbits": NBITS}

WIDEST = 4096
"""Inputs of a layer up to which its second moments are collected: 128 MB of float64."""


@dataclass(frozen=True)
class WeightChoices:
    """`bits` of weights, at least `table_bits` for one that is an embedding as well."""

    bits: int
    block: int
    table_bits: int
    form: str

    def bits_of(self, layer: WeightLayer) -> int:
        """Of one layer; of 8 where its weight is looked up as well, by default."""
        return max(self.bits, self.table_bits) if layer.table_readers() else self.bits


def quantize_weights(
    model: ir.Model, ctx: Context, choices: WeightChoices, excluded: Collection[str]
) -> tuple[list[Layer], list[Declined]]:
    """Quantize the weights of every fitting layer of a model in place; the rest with reasons.

    With calibration samples and fewer than 8 bits, codes and scales are fitted to the second
    moments of the float inputs (see refine.py); else the codes are the nearest. Weights that
    several layers read are stored once, and so is an embedding that is the weight of a layer too.
    """
    form = FORMS[choices.form]
    try:
        ir.raise_opset(model, form.least_opset)
    except EditError as error:
        return [], [Declined("model", f"blocks of weights need opset {form.least_opset}: {error}")]
    ctx.analyses.invalidate(Aspect.ALL)
    layers, declined = find_layers(model, choices.block, excluded)
    moments = _moments([layer for layer in layers if choices.bits_of(layer) < 8], ctx)
    editor, done, known = Editor(model), list[Layer](), dict[tuple[object, ...], _Known]()
    tables: dict[ir.Node, Stored] = {}
    for layer in layers:
        bits = choices.bits_of(layer)
        scope = editor.scope_of(layer.held)
        key = (layer.held, layer.flip, layer.alpha, scope)
        readers = [] if layer.alpha != 1 else layer.table_readers()
        if key not in known:
            codes, grid, db = _codes(layer, bits, moments.get(layer.tap))
            try:
                stored = form.store(editor, scope, str(layer.held.name), codes, grid)
            except EditError as error:
                declined.append(Declined(ir.label(layer.node), str(error)))
                continue
            known[key] = _Known(stored, _action(layer, bits, moments), db)
        put_layer(editor, form, layer, known[key].stored)
        tables.update(dict.fromkeys(readers, known[key].stored))
        done.append(_row(layer, known[key]))
    more, reasons = put_tables(editor, form, tables, excluded)
    editor.remove_dead()
    return [*done, *more], [*declined, *reasons]


@dataclass(frozen=True)
class _Known:
    """A weight that is stored: how it was rounded, and its signal to noise where that is known."""

    stored: Stored
    action: str
    db: float | None


def _row(layer: WeightLayer, known: _Known) -> Layer:
    return Layer(ir.label(layer.node), ir.op(layer.node), known.action, known.db)


def _action(layer: WeightLayer, bits: int, moments: Mapping[Tap, Moments]) -> str:
    how = "second-order" if layer.tap in moments else "nearest"
    return f"weight-only, {bits} bits in blocks of {layer.block}, {how} rounding"


def _moments(layers: Iterable[WeightLayer], ctx: Context) -> Mapping[Tap, Moments]:
    taps = [layer.tap for layer in layers if layer.rows().shape[1] <= WIDEST]
    if not ctx.env.calib or not taps:
        return {}
    return ctx.analyses.get(LayerStats(taps=tuple(dict.fromkeys(taps)))).moments


def _codes(
    layer: WeightLayer, bits: int, moments: Moments | None
) -> tuple[Array, Grid, float | None]:
    """Codes [out, d], their grid, and the signal to noise of the output where it is known."""
    rows = layer.rows()
    if moments is None:
        grid = fitted(rows, bits, layer.block)
        return grid.codes(rows), grid, None
    second = moments.second[0]
    codes, grid = fit_codes(rows, bits, layer.block, second, moments.n)
    return codes, grid, rows_db(rows, grid.values(codes), second)
