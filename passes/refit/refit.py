"""Layers fitted again to what the original layers give, on the inputs they now get.

Minimises E|y - H z - b|^2 over H and b with y the original layer's output and z what reaches the
layer in the compressed model: the asymmetric step of Zhang et al. 2015 (arXiv 1505.06798,
section 3.3), a ridge regression towards the H at hand. A fit is kept where the error on the
samples held out falls, and those of a stage unless the model's outputs likely err more: a layer
may have to move before a later one gains by it. What stands in the end is where they err least.
Where an activation follows that is known, the errors may be those after it; then a fit to those is
tried too (`activation`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from onnxslim import ir
from onnxslim.analyses.distance import errors_of, outputs_of
from onnxslim.analyses.paired import likely_harms
from onnxslim.ir import Array, Model
from onnxslim.passes.refit.activation import activation, work
from onnxslim.passes.refit.rows import Wanted, most_rows
from onnxslim.passes.refit.spot import spots_of
from onnxslim.passes.refit.stage import fit_stage
from onnxslim.passes.refit.stretches import Pair, halves
from onnxslim.pipeline.base import Environment

_STAGES = 8  # parts of the layers that are judged
SAMPLES = 256
"""At most, spread over all of them."""
_FEWEST = 10  # of them


@dataclass(frozen=True)
class Fitted:
    """What the refit did: layers kept, and the outputs' error held out, before and after."""

    layers: int
    before: float
    after: float


def refit(
    original: Model,
    model: Model,
    names: Sequence[str],
    env: Environment,
    *,
    activations: bool = False,
    in_turn: bool = False,
    most: int = SAMPLES,
) -> tuple[Fitted | None, str]:
    """Fit the second factors of the layers with these outputs (in order), in place.

    With `activations`, to what they give after their activation where that is known;
    `in_turn` one after the other, so that each makes up for those before it and for what the value
    lacks that it is added to; without, an eighth of them from one run; to `most` of the
    calibration samples.
    Returns what was done, or None with the reason why nothing was kept.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run one of the models.
    """
    if env.calib is None or len(env.calib) < _FEWEST:
        return None, f"a refit needs at least {_FEWEST} calibration samples"
    parts = halves(env.calib, most)
    wanted = outputs_of(original, parts.held_out, env.threads)
    pair = Pair.of(original, model, parts, env.threads)
    before = _judged(pair, wanted)
    if before is None:
        return None, "no output of the model is a float to compare"
    best, now, layers, least = _State(ir.snapshot(model), before, 0), before, 0, np.inf
    ends = np.linspace(0, len(names), min(_STAGES, len(names)) + 1).round().astype(int).tolist()
    for number, (first, last) in enumerate(pairwise(ends)):
        env.progress("refit", number, len(ends) - 1)
        start, kept, fitted = ir.snapshot(model), pair.new.kept, 0
        for at in range(first, last, 1 if in_turn else last - first):
            end = at + 1 if in_turn else last
            fitted += fit_stage(
                pair, spots_of(model, names[at:end]), env, activations=activations,
                residual=in_turn, later=spots_of(model, names[end:]),
            )  # fmt: skip
        after = _judged(pair, wanted) if fitted else None
        if after is None:
            continue
        least = min(least, float(after.mean()))
        if likely_harms(after, now, parts.runs):
            ir.restore(model, start)
            pair.new.kept = kept
            continue
        now, layers = after, layers + fitted
        if now.mean() < best.errors.mean():
            best = _State(ir.snapshot(model), now, layers)
    if layers > best.layers:
        ir.restore(model, best.model)
    if not best.layers and np.isinf(least):
        return None, "no fit of a layer lowers its own error on samples held out"
    if not best.layers:
        return None, f"held-out error of the outputs {before.mean():.3g} became {least:.3g} at best"
    return Fitted(best.layers, float(before.mean()), float(best.errors.mean())), ""


@dataclass(frozen=True)
class _State:
    model: Model
    errors: Array  # of the outputs, by sample held out
    layers: int  # fitted so far


def _judged(pair: Pair, wanted: Sequence[Mapping[str, Array]]) -> Array | None:
    """The errors of the new model's outputs, by sample held out."""
    return errors_of(wanted, pair.new.outputs(len(pair.parts.fit)))


def activation_work(model: Model, names: Sequence[str]) -> float:
    """Multiply-accumulates that `activations` takes of `refit` beside the rest."""
    total = 0.0
    for spot in spots_of(model, names):
        if activation(spot.value) is not None:
            layer, rows = spot.layer, most_rows(Wanted(spot.layer, spot.output, True))
            total += work(rows, layer.in_features, layer.out_features)
    return total
