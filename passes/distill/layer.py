"""The closed form: each layer fitted to the teacher's output from the student's own input.

W* = W + K (E[x x^T] + ridge)^-1, with x the student's input and K = E[(y - W x) x^T] for the
teacher's output y of that layer: He et al. 2017, eq. 2, and the asymmetric step of Zhang et al.
2015. Layers go in topological order, so that each makes up for those before it; what raises the
error of the model's outputs on the samples held out is undone, and all of it where they do not err
less beyond chance in the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.distance import errors_to, outputs_of
from onnxslim.analyses.linear import Linear, linear
from onnxslim.analyses.paired import errs_less, likely_harms
from onnxslim.analyses.seen import Shapes, observed_shapes
from onnxslim.ir import Array, Model, Node
from onnxslim.passes.distill.grids import Grid, floated, grid_of, written_back
from onnxslim.passes.quant.weights.descent import descend
from onnxslim.passes.quant.weights.rounding import round_to_grid
from onnxslim.passes.refit.spot import Spot, spot_of
from onnxslim.passes.refit.stage import fit_stage
from onnxslim.passes.refit.stretches import Pair, halves
from onnxslim.pipeline.base import Declined, Environment, Layer
from onnxslim.runtime.samples import Feed

STAGES = 48
"""Runs of the samples at most: of more layers, neighbours are fitted from the same run."""

SAMPLES = 256

CHANCE = "all together would not err less beyond chance on samples held out"
TIME_UP = "the time was up"

_SWEEPS = 2


@dataclass(frozen=True)
class Refitted:
    """What the closed form did: the outputs' relative squared error on so many samples held out,
    and the layers."""

    held_out: int
    before: float
    after: float
    layers: tuple[Layer, ...]
    declined: tuple[Declined, ...]


def has_codes(model: Model) -> bool:
    """Whether weights of the main graph are rounded to codes."""
    return any(grid_of(node) is not None for node in model.graph)


def refit_layers(
    teacher: Model, student: Model, env: Environment, seconds: float = math.inf
) -> Refitted | str:
    """Fit the layers of the student in place; a reason where nothing can be compared.

    Cost: a run of at most 256 samples through both models for each layer or stage, from where the
    one before it ended, and one of those held out; none begins after so many `seconds`. Needs
    samples enough that some are held out (`analyses.held_out`).

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run one of the models.
    """
    assert env.calib is not None
    end = time.monotonic() + seconds
    parts = halves(env.calib, SAMPLES)
    held_out = parts.held_out
    wanted = outputs_of(teacher, held_out, env.threads)
    copy, grids = floated(student)
    if set(wanted[0]) - {str(v.name) for v in copy.graph.outputs}:
        return f"the student has other outputs than the teacher, which has {', '.join(wanted[0])}"
    before = errors_to(wanted, copy, held_out, env.threads, "float")
    if before is None:
        return "teacher and student have no float output of the same shape"
    names, declined = pairs(teacher, copy, env.calib[0], env.threads)
    run = _Run(Pair.of(teacher, copy, parts, env.threads), grids, env)
    labels = {str(v.name): ir.label(node) for node in copy.graph for v in node.outputs}
    best, rows = before, list[Layer]()
    stages = np.array_split(names, min(STAGES, max(len(names), 1)))
    for number, stage in enumerate(stages):
        if time.monotonic() > end:
            declined += [Declined(labels[str(name)], TIME_UP) for name in stage]
            continue
        env.progress("layers fitted to the teacher", number, len(names))
        start = ir.snapshot(copy)
        fitted = run.fit(stage.tolist(), np.concatenate([[], *stages[number + 1 :]]).tolist())
        after = errors_to(wanted, copy, held_out, env.threads, "float") if fitted else None
        if after is not None and not likely_harms(after, best, parts.runs):
            best = after
            rows += fitted
        elif fitted:
            ir.restore(copy, start)
            reason = "the outputs on samples held out would err more"
            declined += [Declined(row.node, reason) for row in fitted]
    if rows and not errs_less(best, before, parts.runs):
        declined += [Declined(row.node, CHANCE) for row in rows]
        best, rows = before, []
    if rows:
        written_back(student, copy, grids)
    return Refitted(
        len(held_out), float(before.mean()), float(best.mean()), tuple(rows), tuple(declined)
    )


@dataclass(frozen=True)
class _Run:
    pair: Pair
    grids: dict[str, Grid]
    env: Environment

    def fit(self, names: Sequence[str], later: Sequence[str]) -> list[Layer]:
        """Fit the layers that make these values; those that changed. `later`: what the layers of
        later stages make."""
        spots = self._spots(names)
        before = [spot.layer.weight.const_value for spot in spots]
        fit_stage(self.pair, spots, self.env, self._project, later=self._spots(later))
        return [
            Layer(ir.label(spot.layer.node), ir.op(spot.layer.node), "fitted to the teacher")
            for spot, was in zip(spots, before, strict=True)
            if spot.layer.weight.const_value is not was
        ]

    def _spots(self, names: Sequence[str]) -> list[Spot]:
        student = self.pair.new.model
        makers = {str(v.name): node for node in student.graph for v in node.outputs}
        return [spot for name in names if (spot := spot_at(makers[name])) is not None]

    def _project(self, spot: Spot, matrix: Array, spread: Array) -> Array:
        grid = self.grids.get(str(spot.layer.weight.name))
        return matrix if grid is None else on_grid(spot.layer, grid, matrix, spread)


def on_grid(layer: Linear, grid: Grid, matrix: Array, spread: Array) -> Array:
    """The weight on its grid next to a fitted one in the norm of what it reads, [G, out, d].

    GPTQ's order of columns, then sweeps of coordinate descent (`quant.weights`).
    """
    step, low, high = (layer.as_matrix(a) for a in (grid.step, grid.low, grid.high))
    codes = round_to_grid(matrix, step, spread, low, high)
    for _ in range(_SWEEPS):
        codes = descend(matrix, step, spread, codes, low, high)
    return np.multiply(codes, step)


def pairs(
    teacher: Model, student: Model, sample: Feed, threads: int
) -> tuple[list[str], list[Declined]]:
    """Outputs of layers that both models have, of equal shape, in the student's order; the layers
    that cannot be fitted, and why."""
    theirs = observed_shapes(teacher, sample, threads)
    ours = observed_shapes(student, sample, threads)
    names, declined = list[str](), list[Declined]()
    for node in student.graph:
        if ir.op(node) not in ("Conv", "Gemm", "MatMul"):
            continue
        spot = spot_at(node)
        reason = _unfit(spot, node, theirs, ours)
        if reason:
            declined.append(Declined(ir.label(node), reason))
        elif spot is not None and spot.output not in names:
            names.append(spot.output)
    return names, declined


def _unfit(spot: Spot | None, node: Node, theirs: Shapes, ours: Shapes) -> str:
    if spot is None:
        found = linear(node)
        return found if isinstance(found, str) else "its bias is not one number per output"
    if len(list(spot.layer.weight.uses())) > 1:
        return "other layers read the same weight"
    if spot.layer.alpha != 1 or spot.layer.beta != 1:
        return "alpha or beta is not 1"
    if spot.output not in theirs:
        return "the teacher has no tensor of this name"
    if theirs[spot.output] != ours.get(spot.output):
        return f"the teacher's tensor is {theirs[spot.output]}, not {ours.get(spot.output)}"
    return ""


def spot_at(node: Node) -> Spot | None:
    """Where a layer and its bias are; a layer without a bias keeps having none."""
    spot = spot_of(node)
    if spot is not None:
        return spot if not _shared_bias(spot) else None
    layer = linear(node)
    if not isinstance(layer, Linear) or layer.bias is not None:
        return None
    return Spot(layer, None, -1, str(node.outputs[0].name))


def _shared_bias(spot: Spot) -> bool:
    bias = None if spot.holder is None else spot.holder.inputs[spot.index]
    return bias is not None and len(list(bias.uses())) > 1
