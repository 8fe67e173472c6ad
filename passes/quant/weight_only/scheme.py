"""Scheme weight: choose a grid for each layer, round to it, store the codes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from onnxslim import ir
from onnxslim.analyses.columns import Tap
from onnxslim.analyses.layer_stats import LayerStats
from onnxslim.analyses.moments import Moments
from onnxslim.errors import EditError
from onnxslim.ir import Array, Editor
from onnxslim.passes.quant.decibels import rows_db
from onnxslim.passes.quant.selection import first_output
from onnxslim.passes.quant.weight_only.equalize import channel_sizes, equalize_inputs
from onnxslim.passes.quant.weight_only.forms import Form, Stored
from onnxslim.passes.quant.weight_only.grid import Grid, fitted
from onnxslim.passes.quant.weight_only.layers import WeightLayer, find_layers
from onnxslim.passes.quant.weight_only.nbits import NBITS
from onnxslim.passes.quant.weight_only.put import put_layer, put_tables
from onnxslim.passes.quant.weight_only.refine import fit_codes
from onnxslim.passes.quant.weight_only.standard import SIGNED, STANDARD
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Layer
from onnxslim.targets.forms import BLOCKS, Blocks

FORMS: Mapping[str, Form] = {"standard": STANDARD, "nbits": NBITS, "signed": SIGNED}

WIDEST = 4096
"""Inputs of a layer up to which its second moments are collected: 128 MB of float64."""


@dataclass(frozen=True)
class WeightChoices:
    """`bits` of weights, at least `table_bits` for one that is an embedding as well; `kept` is what
    the target takes."""

    bits: int
    block: int
    table_bits: int
    form: str
    kept: Blocks = BLOCKS
    wide: frozenset[str] = frozenset()  # layers (`first_output`) whose weights have 8 bits

    def bits_of(self, layer: WeightLayer) -> int:
        """Of one layer; of 8 where its weight is looked up as well, by default."""
        if first_output(layer.node) in self.wide:
            return 8
        bits = max(self.bits, self.table_bits) if layer.table_readers() else self.bits
        return min(bits, self.kept.bits)

    def layers(
        self, model: ir.Model, excluded: Collection[str]
    ) -> tuple[list[WeightLayer], list[Declined]]:
        """Those that can be stored, and reasons why others cannot."""
        return find_layers(model, self.block, excluded, self.kept.sizes[0])


def quantize_weights(
    model: ir.Model, ctx: Context, choices: WeightChoices, excluded: Collection[str]
) -> tuple[list[Layer], list[Declined]]:
    """Quantize the weights of every fitting layer of a model in place; the rest with reasons.

    With calibration samples and fewer than 8 bits, codes and scales are fitted to the second
    moments of the float inputs (see refine.py); else the codes are the nearest, and of 8 bits so
    where samples have told how to scale the inputs (see equalize.py). Weights that several layers
    read are stored once, and so is an embedding that is the weight of a layer too.
    """
    form = FORMS[choices.form]
    try:
        ir.raise_opset(model, form.least_opset)
    except EditError as error:
        return [], [Declined("model", f"blocks of weights need opset {form.least_opset}: {error}")]
    ctx.analyses.invalidate(Aspect.ALL)
    editor, done, stored = Editor(model), list[Layer](), dict[_Key, Stored]()
    layers, declined = choices.layers(model, excluded)
    nearest = [layer for layer in layers if choices.bits_of(layer) == 8]
    if equalize_inputs(editor, nearest, channel_sizes(model, nearest, ctx)):
        layers, declined = choices.layers(model, excluded)
    few = [layer for layer in layers if choices.bits_of(layer) < 8]
    moments = _moments([x for x in few if _known_as(x, choices.bits_of(x)) not in ctx.memory], ctx)
    fits = _fits(editor, layers, choices, moments, ctx)
    tables: dict[ir.Node, Stored] = {}
    for layer in layers:
        key = _key(editor, layer)
        fit = fits[key]
        readers = [] if layer.alpha != 1 else layer.table_readers()
        if key not in stored:
            hint = str(layer.held.name)
            try:
                stored[key] = form.store(editor, key[3], hint, fit.codes, fit.grid)
            except EditError as error:
                declined.append(Declined(ir.label(layer.node), str(error)))
                continue
        put_layer(editor, form, layer, stored[key])
        tables.update(dict.fromkeys(readers, stored[key]))
        done.append(Layer(ir.label(layer.node), ir.op(layer.node), fit.action, fit.db))
    more, reasons = put_tables(editor, form, tables, excluded)
    editor.remove_dead()
    return [*done, *more], [*declined, *reasons]


_Key = tuple[ir.Value, bool, float, ir.Scope]
"""A weight as layers read it: the constant, whether it is [out, d], its factor, where it lies."""


def _key(editor: Editor, layer: WeightLayer) -> _Key:
    return layer.held, layer.flip, layer.alpha, editor.scope_of(layer.held)


def _known_as(layer: WeightLayer, bits: int) -> tuple[object, ...]:
    """Under which a fit is kept for a pass that is sent back to the same model."""
    weight = id(ir.constant(layer.held))
    return "codes", weight, layer.flip, layer.alpha, layer.tap, bits, layer.block


@dataclass(frozen=True)
class _Fit:
    """Codes [out, d], uint8, and their grid; how they were found, and the signal to noise of the
    output where that is known."""

    codes: Array
    grid: Grid
    action: str
    db: float | None


def _fits(
    editor: Editor,
    layers: Iterable[WeightLayer],
    choices: WeightChoices,
    moments: Mapping[Tap, Moments],
    ctx: Context,
) -> Mapping[_Key, _Fit]:
    """The codes of each weight, one weight per thread at a time."""
    first: dict[_Key, WeightLayer] = {}
    for layer in layers:
        first.setdefault(_key(editor, layer), layer)

    def fit(layer: WeightLayer) -> _Fit:
        bits = choices.bits_of(layer)
        place = _known_as(layer, bits)
        if place in ctx.memory:
            return cast("tuple[_Fit, object]", ctx.memory[place])[0]
        known = moments.get(layer.tap) if bits < 8 else None
        found = _fit(layer, bits, known, choices.kept.symmetric)
        if found.db is not None:
            ctx.memory[place] = found, ir.constant(layer.held)  # which keeps its id
        return found

    return dict(zip(first, ctx.env.executor.map(fit, first.values()), strict=True))


def _fit(layer: WeightLayer, bits: int, moments: Moments | None, symmetric: bool) -> _Fit:
    rows = layer.rows()
    action = f"weight-only, {bits} bits in blocks of {layer.block}, "
    if moments is None:
        grid = fitted(rows, bits, layer.block, symmetric=symmetric)
        return _Fit(grid.codes(rows).astype(np.uint8), grid, f"{action}nearest rounding", None)
    second = moments.second[0]
    codes, grid = fit_codes(rows, bits, layer.block, second, moments.n, symmetric)
    db = rows_db(rows, grid.values(codes), second)
    return _Fit(codes.astype(np.uint8), grid, f"{action}second-order rounding", db)


def _moments(layers: Iterable[WeightLayer], ctx: Context) -> Mapping[Tap, Moments]:
    taps = [layer.tap for layer in layers if layer.inputs <= WIDEST]
    if not ctx.env.calib or not taps:
        return {}
    return ctx.analyses.get(LayerStats(taps=tuple(dict.fromkeys(taps)))).moments
