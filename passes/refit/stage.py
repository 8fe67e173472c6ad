"""Layers fitted from one run of the samples: rows seen, fits tried, the best written."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnxslim.ir import Array, Editor
from onnxslim.passes.refit.activation import (
    NOTHING,
    Pieces,
    activation,
    after_activation,
    error_after,
)
from onnxslim.passes.refit.regression import best_bias, joint_error, regressions
from onnxslim.passes.refit.rows import Seen, Wanted, collect
from onnxslim.passes.refit.spot import Spot, skip
from onnxslim.passes.refit.stretches import Pair
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.blas import longest_first

_RIDGES = (1e-3, 1e-2, 1e-1)  # of the mean variance of z

Project = Callable[[Spot, Array, Array], Array]
"""project(spot, matrix, spread): the weight next to a fitted one, both [G, out, d], that the layer
can hold; `spread` [G, d, d] is what the error of its output is measured by."""


def fit_stage(
    pair: Pair,
    spots: Sequence[Spot],
    env: Environment,
    project: Project | None = None,
    *,
    activations: bool = False,
    residual: bool = False,
    later: Sequence[Spot] = (),
) -> int:
    """Fit layers of the new model from one run of the samples, in place; how many were changed.

    With `activations`, to what known activations make of their outputs; with `residual`, to what
    they are added to as well. `later`: all the layers that are fitted afterwards, if they are.
    """
    if not spots:
        return 0
    model = pair.new.model
    editor = Editor(model)
    pieces = [activation(spot.value) if activations else None for spot in spots]
    order = {node: at for at, node in enumerate(model.graph)} if residual else {}
    wanted = [
        Wanted(spot.layer, spot.output, after is not None, skip(spot, order) if residual else "")
        for spot, after in zip(spots, pieces, strict=True)
    ]
    nodes = [str(spot.layer.node.outputs[0].name) for spot in (*spots, *later)] if later else []
    seen = collect(pair, wanted, env, ([spot.output for spot in later], nodes))
    fits = longest_first(
        env.executor,
        lambda task: _fitted(task[0], task[1], project, task[2]),
        zip(spots, seen, pieces, strict=True),
        lambda task: task[0].layer.in_features ** 3,
    )
    return sum(
        made is not None and _write(editor, spot, *made)
        for spot, made in zip(spots, fits, strict=True)
    )


def _fitted(
    spot: Spot, seen: tuple[Seen, Seen], project: Project | None, pieces: Pieces | None
) -> tuple[Array, Array] | None:
    """H and b; None where those at hand err no more on the samples held out."""
    layer, offset, biased = spot.layer, spot.offset(), spot.holder is not None
    fit = seen[0].all_moments()
    if offset is None or not np.isfinite(fit.scatter).all():
        return None
    matrix = layer.matrix().astype(np.float64)
    now = matrix, offset.reshape(layer.groups, -1)
    fits = regressions(matrix, fit, _RIDGES, biased)
    loss = _judge(seen[1], pieces)
    better, shifted = min(fits, key=loss)
    if project is not None:
        size = layer.in_features
        spread = (fit.covariance() if biased else fit.second)[:, :size, :size]
        better = project(spot, better, spread)
        shifted = best_bias(better, fit) if biased else now[1]
    elif pieces is not None and biased:
        start = min([now, (better, shifted)], key=loss)
        better, shifted = min(
            [(better, shifted), after_activation(seen[0].all_rows(), *start, pieces)], key=loss
        )
    if not loss((better, shifted)) < loss(now) or not np.isfinite(better).all():
        return None
    return better, shifted


def _write(editor: Editor, spot: Spot, matrix: Array, bias: Array) -> bool:
    """Put a fit into the model; whether there is a place for its bias."""
    if spot.holder is not None:
        content = spot.content(bias.ravel())
        if content is None:
            return False
        editor.replace_initializer(editor.unshare(spot.holder, spot.index), content)
    weight = editor.unshare(spot.layer.node, spot.layer.weight_index)
    editor.replace_initializer(weight, spot.layer.from_matrix(matrix))
    return True


def _judge(held_out: Seen, pieces: Pieces | None) -> Callable[[tuple[Array, Array]], float]:
    """The error of a weight and a bias on samples held out, after the activation if there is one
    to look at."""
    if held_out.rows is None:
        moments = held_out.all_moments()
        return lambda found: joint_error(found[0], found[1], moments)
    rows, after = held_out.all_rows(), NOTHING if pieces is None else pieces
    return lambda found: error_after(rows, found[0], found[1], after)
