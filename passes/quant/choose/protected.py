"""Which layers get 8 bits where others get fewer, and which stay in float, so that the outputs of
a model whose weights alone are quantized are good enough.

The noise of each layer in the outputs is measured with that layer alone in the nearest codes, as
far as time allows (`sensitivity` predicts the others). Those with most noise for each of their
weights get 8 bits first; once all may have 8 bits, they stay in float.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxslim import ir
from onnxslim.analyses.sensitivity import sensitivities
from onnxslim.ir import Editor, Model
from onnxslim.passes.quant.choose.judge import Judge
from onnxslim.passes.quant.choose.widths import added, chosen
from onnxslim.passes.quant.decibels import BEST_DB, to_db
from onnxslim.passes.quant.selection import first_output
from onnxslim.passes.quant.weight_only.alone import FEW, write_alone
from onnxslim.passes.quant.weight_only.grid import fitted
from onnxslim.passes.quant.weight_only.layers import WeightLayer
from onnxslim.passes.quant.weight_only.scheme import WeightChoices, quantize_weights
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Layer

SECONDS = 30.0
"""For trials of single layers; the others are predicted."""

SAMPLES = 4
"""For the trial of a single layer."""

ROWS = 256
"""Outputs of a layer on which its own error is taken."""

PARTS = 8
"""Of a share of the weights, the steps in which it is given."""

LOSSY = "kept in float: the outputs lose too much by it"


@dataclass(frozen=True)
class Limits:
    """What is asked for, and the shares of all weights that may have 8 bits, and stay float."""

    goal_db: float
    wide_share: float
    float_share: float


@dataclass(frozen=True)
class Protected:
    """What was done, and the signal to noise of the outputs in dB."""

    layers: list[Layer]
    declined: list[Declined]
    db: float


def quantize_protected(
    model: Model,
    ctx: Context,
    choices: WeightChoices,
    excluded: Collection[str],
    limits: Limits,
    judge: Judge,
) -> Protected:
    """`quantize_weights` in place, with as much in 8 bits or in float as the goal takes, within
    the limits. Raises RuntimeUnavailable; the model is then as before."""
    before = ir.snapshot(model)
    done = _tried(model, ctx, choices, excluded, judge)
    if not done.layers or done.db >= limits.goal_db:
        return done
    layers = _main_layers(before, choices, excluded)
    noise = _noise(before, layers, choices.bits, judge)
    sizes = {name: layer.size for name, layer in layers.items()}
    tries = steps(noise, sizes, choices.bits, limits)
    last = -1

    def make(index: int) -> Protected:
        nonlocal last, done
        if index != last:
            ir.restore(model, before)
            (wide, kept), last = tries[index], index
            done = _tried(model, ctx, replace(choices, wide=wide), {*excluded, *kept}, judge)
            done.declined.extend(
                Declined(ir.label(layers[name].node), LOSSY) for name in sorted(kept)
            )
        return done

    def enough(index: int) -> bool:
        return make(index).db >= limits.goal_db

    return make(bisect_left(range(len(tries) - 1), True, key=enough)) if tries else done


def _tried(
    model: Model, ctx: Context, choices: WeightChoices, excluded: Collection[str], judge: Judge
) -> Protected:
    ctx.analyses.invalidate(Aspect.ALL)
    layers, declined = quantize_weights(model, ctx, choices, excluded)
    return Protected(layers, declined, judge.sqnr_db(model) if layers else BEST_DB)


def steps(
    noise: Mapping[str, float], sizes: Mapping[str, int], bits: int, limits: Limits
) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Layers in 8 bits and layers in float, more and more of them."""
    none, every = frozenset[str](), frozenset(sizes)
    found: list[tuple[frozenset[str], frozenset[str]]] = []
    parts = [(i + 1) / PARTS for i in range(PARTS)]
    if bits < 8:
        for share in (part * limits.wide_share for part in parts):
            found.append((every if share >= 1 else chosen(noise, sizes, share), none))
    if bits == 8 or not 0 < limits.wide_share < 1:
        wide = every if limits.wide_share else none
        found += [(wide, chosen(noise, sizes, part * limits.float_share)) for part in parts]
    return list(dict.fromkeys(found))


def _main_layers(
    model: Model, choices: WeightChoices, excluded: Collection[str]
) -> dict[str, WeightLayer]:
    found, _ = choices.layers(model, excluded)
    return {first_output(x.node): x for x in found if x.node.graph is model.graph}


def _noise(
    model: Model, layers: Mapping[str, WeightLayer], bits: int, judge: Judge
) -> dict[str, float]:
    """By layer, the noise over signal that it adds to the outputs by itself."""

    def alone(name: str) -> float:
        twin = ir.snapshot(model)
        write_alone(Editor(twin), {name}, {name} if bits <= FEW else ())
        return judge.sqnr_db(twin, SAMPLES)

    local = {name: _local_db(layer, bits) for name, layer in layers.items()}
    return {s.name: added(s.db, BEST_DB) for s in sensitivities(local, alone, SECONDS)}


def _local_db(layer: WeightLayer, bits: int) -> float:
    """Of a part of the weight."""
    rows = layer.rows()
    rows = rows[:: max(1, len(rows) // ROWS)]
    grid = fitted(rows, bits, layer.block)
    change = grid.values(grid.codes(rows)) - rows
    return to_db(float(np.square(rows).sum()), float(np.square(change).sum()))
