"""The importance of the units of a group, from the layers that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes import AxisMap, Group, Layer
from onnxslim.analyses.columns import Tap
from onnxslim.analyses.linear import Linear, linear
from onnxslim.ir import Array
from onnxslim.passes.prune.evidence import Evidence, roughly, share_of, shrunk
from onnxslim.passes.prune.score import Consumer, greedy, ranked

Importance = Literal["loss", "wanda", "variance", "magnitude"]


@dataclass(frozen=True)
class Ranking:
    """`order`: units, the first to go first; `losses[k]`: relative loss without the first k."""

    group: Group
    order: list[int]
    losses: Array
    shares: Mapping[str, float] = field(default_factory=dict[str, float])  # by layer: `Evidence`


def readers(axes: AxisMap, group: Group) -> list[tuple[Linear, Layer]]:
    """The dense layers that read the units of a group."""
    found: list[tuple[Linear, Layer]] = []
    for layer in group.columns:
        own = linear(layer.node)
        if isinstance(own, Linear) and own.groups == 1:
            found.append((own, layer))
    return found


def taps(axes: AxisMap, groups: Sequence[Group]) -> tuple[Tap, ...]:
    """Where statistics are needed."""
    found = (own.tap for group in groups for own, _ in readers(axes, group))
    return tuple(dict.fromkeys(found))


def rank(
    axes: AxisMap,
    group: Group,
    evidence: Evidence,
    importance: Importance,
    most: int,
) -> Ranking:
    """The order in which units go. Without statistics, or readers, by the norms of weights."""
    known = [(own, layer) for own, layer in readers(axes, group) if own.tap in evidence.fit]
    if importance == "magnitude" or not known:
        return Ranking(group, *ranked(_norms(axes, group), most))
    if importance == "loss":
        shares: dict[str, float] = {}
        consumers = [
            _consumer(own, _blocks(axes, group, own, layer), evidence, shares)
            for own, layer in known
        ]
        return Ranking(group, *greedy(consumers, group.size, most), shares)
    scores = np.zeros(group.size)
    for own, layer in known:
        square = np.square(own.matrix()[0].astype(np.float64)).sum(axis=0)
        seen = evidence.whole(own.tap)
        spread = np.diagonal((seen.second if importance == "wanda" else seen.covariance())[0])
        blocks = _blocks(axes, group, own, layer)
        each = square * spread
        scores += np.array([each[block].sum() for block in blocks]) / max(float(each.sum()), 1e-30)
    return Ranking(group, *ranked(scores, most))


def _consumer(
    own: Linear, blocks: list[Array], evidence: Evidence, shares: dict[str, float]
) -> Consumer:
    """A reader whose covariance is drawn to its diagonal as far as samples held out ask for, where
    the half of the units goes whose inputs vary least for their weights."""
    weight = own.matrix()[0].astype(np.float64)
    fit, held = evidence.fit[own.tap], evidence.held.get(own.tap)
    centre = fit.mean[0]
    spread = roughly(fit, centre)
    each = np.square(weight).sum(axis=0) * np.diagonal(spread)
    least = np.argsort([each[block].sum() for block in blocks], kind="stable")[: len(blocks) // 2]
    lost = np.zeros(len(each), np.bool_)
    for unit in least.tolist():
        lost[blocks[unit]] = True
    share = share_of(weight, fit, held, lost, centre)
    shares[str(own.node.outputs[0].name)] = share
    judge = None if held is None else roughly(held, centre)
    return Consumer(weight, shrunk(spread, share), blocks, judge)


def _unit_of(axes: AxisMap, group: Group) -> Array:
    """The unit of each class of atoms, -1 where it is in none of the group."""
    unit_of = np.full(axes.solved.count, -1, np.int64)
    for at, classes in enumerate(group.units):
        unit_of[classes] = at
    return unit_of


def _blocks(axes: AxisMap, group: Group, own: Linear, layer: Layer) -> list[Array]:
    """The columns of the layer's matrix that each unit has."""
    assert layer.columns is not None
    positions = _unit_of(axes, group)[axes.classes(layer.columns)]
    window = own.in_features // positions.size
    order = np.argsort(positions, kind="stable")
    bounds = np.searchsorted(positions[order], np.arange(group.size + 1))
    return [
        (order[a:b, None] * window + np.arange(window)).ravel()
        for a, b in pairwise(bounds.tolist())
    ]


def _norms(axes: AxisMap, group: Group) -> Array:
    """The squared norm of all weights that a unit takes part in, layer by layer relative."""
    scores = np.zeros(group.size)
    unit_of = _unit_of(axes, group)
    for value in dict.fromkeys(layer.weight for layer in (*group.rows, *group.columns)):
        content = ir.array(value)
        if content is None:
            continue
        square: Array = np.square(content.astype(np.float64))
        for axis, classes in enumerate(axes.axes(value)):
            if classes is None:
                continue
            others = tuple(i for i in range(square.ndim) if i != axis)
            along = square.sum(axis=others)
            units = unit_of[classes]
            mine = units >= 0
            scores += np.bincount(units[mine], along[mine], group.size) / max(along.sum(), 1e-30)
    return scores
