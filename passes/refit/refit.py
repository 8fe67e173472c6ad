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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from onnxslim import ir
from onnxslim.analyses.distance import errors_of, outputs_of
from onnxslim.analyses.linear import Linear, linear
from onnxslim.analyses.moments import Moments
from onnxslim.analyses.paired import likely_harms
from onnxslim.ir import Array, Editor, Model, Node, Value
from onnxslim.passes.refit.activation import (
    NOTHING,
    Pieces,
    activation,
    after_activation,
    error_after,
    work,
)
from onnxslim.passes.refit.rows import Seen, Wanted, collect, most_rows
from onnxslim.passes.refit.solve import solved
from onnxslim.passes.refit.stretches import Pair, halves
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.blas import longest_first

_STAGES = 8  # parts of the layers that are judged
SAMPLES = 256
"""At most, spread over all of them."""
_RIDGES = (1e-3, 1e-2, 1e-1)  # of the mean variance of z
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


@dataclass(frozen=True)
class Spot:
    """A layer and the constant that is added to its result: of the node itself, or of an Add
    after it; none has no holder. `output` is the name of the sum, in this model and in the
    original."""

    layer: Linear
    holder: Node | None
    index: int
    output: str

    @property
    def value(self) -> Value:
        """The result with the constant."""
        return (self.holder or self.layer.node).outputs[0]

    def offset(self) -> Array | None:
        """The constant added, [out], where it is one number per output."""
        if self.holder is None:
            return np.zeros(self.layer.out_features)
        if self.holder is self.layer.node:
            return self.layer.bias_vector()
        added = ir.array(self.holder.inputs[self.index])
        if added is None or added.size != self.layer.out_features:
            return None
        return added.astype(np.float64).ravel()

    def content(self, offset: Array) -> Array | None:
        """An offset in the shape and dtype that the holder has it in."""
        if self.holder is None:
            return None
        if self.holder is self.layer.node:
            return self.layer.from_bias(offset)
        added = ir.array(self.holder.inputs[self.index])
        return None if added is None else offset.reshape(added.shape).astype(added.dtype)


Project = Callable[["Spot", Array, Array], Array]
"""project(spot, matrix, spread): the weight next to a fitted one, both [G, out, d], that the layer
can hold; `spread` [G, d, d] is what the error of its output is measured by."""


def spots_of(model: Model, names: Sequence[str]) -> list[Spot]:
    """The layers that make these values of the main graph and can be fitted."""
    makers = {str(v.name): node for node in model.graph for v in node.outputs}
    found = [spot_of(makers[name]) for name in names if name in makers]
    return [spot for spot in found if spot is not None]


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
        Wanted(spot.layer, spot.output, after is not None, _skip(spot, order) if residual else "")
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


def skips(model: Model, names: Sequence[str]) -> list[str]:
    """The names of what the layers with these outputs are added to."""
    order = {node: at for at, node in enumerate(model.graph)}
    found = (_skip(spot, order) for spot in spots_of(model, names))
    return list(dict.fromkeys(name for name in found if name))


def _skip(spot: Spot, order: Mapping[Node, int]) -> str:
    """The name of what a layer's result is added to, if it is there before the layer runs; `order`
    are the places of the nodes of the main graph."""
    readers = [use.node for use in spot.value.uses()]
    if len(readers) != 1 or ir.op(readers[0]) != "Add" or spot.value.is_graph_output():
        return ""
    other = next((value for value in readers[0].inputs if value is not spot.value), None)
    maker = None if other is None else other.producer()
    if other is None or maker is None or ir.constant(other) is not None:
        return ""
    return str(other.name) if order.get(maker, len(order)) < order[spot.layer.node] else ""


def spot_of(node: Node) -> Spot | None:
    """Where a second factor and its offset are, from the node that makes the layer's output."""
    layer = linear(node)
    if isinstance(layer, Linear):
        if layer.bias is not None:
            return _known(Spot(layer, node, 2, str(node.outputs[0].name)))
        readers = list(node.outputs[0].uses())
        node = readers[0][0] if len(readers) == 1 else node
    if ir.op(node) != "Add":
        return None
    for index in (0, 1):
        maker = None if (value := node.inputs[index]) is None else value.producer()
        before = None if maker is None else linear(maker)
        if isinstance(before, Linear):
            return _known(Spot(before, node, 1 - index, str(node.outputs[0].name)))
    return None


def _known(spot: Spot) -> Spot | None:
    return None if spot.offset() is None else spot


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


def regressions(
    matrix: Array, joint: Moments, shares: Sequence[float], biased: bool = True
) -> list[tuple[Array, Array]]:
    """H and b of least squares from the moments of (z, y), drawn towards the H given by a ridge
    of each share of the mean variance of z.

    `matrix` is [G, out, d]; the moments have d + out features. b is zero unless `biased`.
    Returns [G, out, d] and [G, out].
    """
    size, found = matrix.shape[2], list[tuple[Array, Array]]()
    spread = joint.covariance() if biased else joint.second
    gram: Array = np.ascontiguousarray(spread[:, :size, :size])
    wanted = spread[:, :size, size:] - gram @ np.swapaxes(matrix, 1, 2)
    own, at = np.diagonal(gram, axis1=1, axis2=2).copy(), np.arange(size)
    level = own.mean(axis=1, keepdims=True)
    for share in shares:
        gram[:, at, at] = own + np.where(level > 0, share * level, 1.0)
        better = matrix + np.swapaxes(solved(gram, wanted), 1, 2)
        bias = best_bias(better, joint) if biased else np.zeros(matrix.shape[:2])
        found.append((better, bias))
    return found


def best_bias(matrix: Array, joint: Moments) -> Array:
    """The b with which y - H z - b has no mean, [G, out]."""
    mean, size = joint.mean, matrix.shape[2]
    bias: Array = mean[:, size:] - (matrix @ mean[:, :size, None])[..., 0]
    return bias


def joint_error(matrix: Array, bias: Array, joint: Moments) -> float:
    """E|y - H z - b|^2 over the rows that the moments of (z, y) were taken from."""
    size, sums = matrix.shape[2], joint.scatter
    spread = float(np.sum((matrix @ sums[:, :size, :size] - 2 * sums[:, size:, :size]) * matrix))
    spread += float(np.trace(sums[:, size:, size:], axis1=1, axis2=2).sum())
    shift = joint.mean[:, size:] - (matrix @ joint.mean[:, :size, None])[..., 0] - bias
    return spread / max(joint.n, 1) + float(np.square(shift).sum())
