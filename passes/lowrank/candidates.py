"""What could be done to each layer: every cut at every rank, with its cost and its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd, log10
from typing import Literal, NamedTuple

import numpy as np

from onnxslim.analyses.layer_stats import Moments, output_error
from onnxslim.ir import Array
from onnxslim.passes.lowrank.emit import Pair, can_pivot
from onnxslim.passes.lowrank.pivot import direct, pivoted, pivots
from onnxslim.passes.lowrank.schemes import Geometry, Scheme, schemes
from onnxslim.passes.lowrank.survey import Site
from onnxslim.passes.lowrank.svd import (
    Basis,
    Problem,
    basis,
    damped,
    factors,
    loss_elsewhere,
    problem,
    product,
)
from onnxslim.passes.lowrank.tucker import core, core_elsewhere, tucker

_DAMPING = 1e-4  # of the covariance towards the identity
_DAMPINGS_FEW = (1e-3, 1e-2, 1e-1)  # tried where rows are few, and samples are held out
_DAMPING_FEW = 1e-2  # taken there where none are held out
_FEW = 10  # rows per feature

Unit = Literal["macs", "params", "ms"]


@dataclass(frozen=True)
class Cut:
    """One way to cut one layer, judged at the ranks worth having."""

    scheme: Scheme
    damping: float
    loss: Mapping[int, float]  # rank -> relative to the variance of the output, samples held out
    within: Mapping[int, float]  # the same of the samples fitted to


@dataclass(frozen=True)
class Candidate:
    """A layer cut at a rank, or left as it is (`cut` None)."""

    cut: Cut | None
    rank: int
    macs: int
    params: int
    loss: float  # relative to the variance of the output
    ms: float | None = None  # predicted
    reading: int = 0  # of a table: which of its readings

    def cost(self, unit: Unit) -> float:
        """What a budget of this unit counts."""
        if unit == "ms":
            return 0.0 if self.ms is None else self.ms
        return self.macs if unit == "macs" else self.params


def cuts(site: Site, scheme: str, multiple: int) -> list[Cut]:
    """All cuts of a layer that have a rank for which they cost less than the layer."""
    step = multiple // gcd(multiple, site.shape.groups)
    ways = [
        (way, ranks)
        for way in schemes(site.shape, scheme, step)
        if (ranks := way.ranks(site.shape, step)) and (not way.pivoted or can_pivot(site.layer))
    ]
    if not ways:
        return []
    found: dict[Scheme, Cut] = {}
    for damping in dampings(site):
        covariance = mixed(site.fit, site.shape, damping)
        bases = _Bases(site, covariance, ways)
        for way, ranks in ways:
            cut = _judged(site, way, damping, ranks, bases)
            if cut is not None and (
                way not in found or sum(cut.loss.values()) < sum(found[way].loss.values())
            ):
                found[way] = cut
    return list(found.values())


def dampings(site: Site) -> tuple[float, ...]:
    """How much of the identity the covariance may be mixed with: more where rows are few."""
    if site.fit is None or site.fit.n >= _FEW * site.shape.features:
        return (_DAMPING,)
    return (_DAMPING_FEW,) if site.held is None else _DAMPINGS_FEW


class _Bases:
    """The bases of one layer and covariance; Tucker cuts share that of the pointwise one."""

    def __init__(self, site: Site, covariance: Array, ways: Sequence[tuple[Scheme, range]]) -> None:
        self._limits: dict[tuple[int, ...], int] = {}
        for way, ranks in ways:
            most = max(self._limits.get(way.first, 0), way.reduced or ranks[-1])
            self._limits[way.first] = most
        self.matrix = site.layer.matrix().astype(np.float64)
        self.covariance, self.others = covariance, held_covariance(site)
        self._known: dict[tuple[int, ...], list[Judged]] = {}
        self._losses: dict[tuple[tuple[int, ...], int], Losses] = {}
        self._shape = site.shape

    def of(self, way: Scheme) -> list[Judged]:
        """One per group, of as many directions as any cut with the same first factor needs."""
        if way.first not in self._known:
            tasks = problems(self._shape, way, self.matrix, self.covariance)
            held: Sequence[Problem | None] = [None] * len(tasks)
            if self.others is not None:
                held = problems(self._shape, way, self.matrix, self.others)
            limit = self._limits[way.first]
            self._known[way.first] = [
                Judged(task, basis(task, limit), other)
                for task, other in zip(tasks, held, strict=True)
            ]
        return self._known[way.first]

    def losses(self, way: Scheme, group: int, ranks: Sequence[int]) -> Losses:
        """Those of a group, at least at these ranks: cuts that are one but for how they are written
        share them."""
        part = self.of(way)[group]
        if way.reduced or part.task.places > 1:
            return _losses(way, part, ranks)
        key = way.first, group
        if key not in self._losses:
            self._losses[key] = _losses(way, part, range(1, len(part.found.loss)))
        return self._losses[key]


Losses = tuple[dict[int, float], dict[int, float]]
"""E|y - y'|^2 by rank, on what is fitted and on the rows held out."""


class Judged(NamedTuple):
    """One group of a layer: what is fitted, its basis, and the rows held out if there are any."""

    task: Problem
    found: Basis
    held: Problem | None


def _judged(
    site: Site, way: Scheme, damping: float, ranks: Sequence[int], bases: _Bases
) -> Cut | None:
    """The cut with its loss at each rank; None where the output never varies."""
    within = dict.fromkeys(ranks, 0.0)
    apart = dict.fromkeys(ranks, 0.0)
    energy = energy_apart = 0.0
    for group, part in enumerate(bases.of(way)):
        inside, outside = bases.losses(way, group, ranks)
        ranks = [r for r in ranks if r in inside]
        for r in ranks:
            within[r] += inside[r]
            apart[r] += outside[r]
        energy += part.task.energy()
        energy_apart += (part.held or part.task).energy()
    if energy <= 0 or energy_apart <= 0 or not ranks:
        return None
    return Cut(
        way,
        damping,
        {r: apart[r] / energy_apart for r in ranks},
        {r: within[r] / energy for r in ranks},
    )


def _losses(way: Scheme, part: Judged, ranks: Sequence[int]) -> Losses:
    """E|y - y'|^2 by rank, on what the pair is fitted to and elsewhere."""
    task, found, held = part
    if way.reduced:
        first = found.first[: way.reduced]
        middle = core(task, first)
        some = [r for r in ranks if r < len(middle.loss)]
        within = {r: float(middle.loss[r]) for r in some}
        return within, within if held is None else core_elsewhere(first, middle, held, some)
    some = [r for r in ranks if r < len(found.loss)]
    within = {r: float(found.loss[r]) for r in some}
    return within, within if held is None else loss_elsewhere(task, found, held, some)


def candidates(site: Site, found: Sequence[Cut]) -> list[Candidate]:
    """The layer as it is, then every cut at every rank."""
    made = [Candidate(None, 0, site.shape.macs, site.shape.params, 0.0)]
    for cut in found:
        for rank, loss in cut.loss.items():
            cost = cut.scheme.cost(site.shape, rank)
            made.append(Candidate(cut, rank, cost.macs, cost.params, loss))
    return made


def frontier(options: Sequence[Candidate], unit: Unit) -> list[Candidate]:
    """The layer as it is, then what costs less and is not beaten in cost and loss."""
    kept = [options[0]]
    for option in sorted(options[1:], key=lambda o: (o.loss, o.cost(unit))):
        if option.cost(unit) < kept[-1].cost(unit):
            kept.append(option)
    return kept


def pair(site: Site, cut: Cut, rank: int) -> Pair:
    """The factors of a cut at a rank from all samples, and how the bias makes up for the mean."""
    matrix = site.layer.matrix().astype(np.float64)
    moments = site.moments
    covariance = mixed(moments, site.shape, cut.damping)
    way = cut.scheme
    parts = [_factors(way, task, rank) for task in problems(site.shape, way, matrix, covariance)]
    firsts = np.stack([part[0] for part in parts])
    seconds = np.stack([part[1] for part in parts])
    made = Pair(way, rank, firsts, seconds, np.zeros(0))
    if way.pivoted:
        made = _pivoted(made)
    if way.reduced:
        last, middle = (np.stack([part[i] for part in parts]) for i in (2, 3))
        made = replace(made, rank=way.reduced, inner=_inner(site.shape, rank, last, middle))
    if moments is None:
        return replace(made, shift=np.zeros(site.layer.out_features))
    change = matrix - effective(site.shape, made)
    shift = (change @ moments.mean[:, :, None]).ravel()
    return replace(made, shift=shift)


def _pivoted(made: Pair) -> Pair:
    """The same product with outputs that are what the first factor gives."""
    second = made.second[0, :, 0, :]
    rows = pivots(second)
    moved, first = pivoted(second, made.first[0], rows)
    known = direct(rows, 0, len(second))
    return replace(made, first=first[None], second=moved[None, :, None, :], direct=known)


def _factors(way: Scheme, task: Problem, rank: int) -> tuple[Array, ...]:
    """V and H of one group; of a Tucker cut also the U and G that H consists of."""
    if not way.reduced:
        second, first = factors(task, basis(task, rank), rank)
        return first, second
    found = basis(task, way.reduced)
    last, middle, first = tucker(task, found.first, rank)
    second = np.tensordot(last, middle, axes=(1, 0))
    return first, second, last, middle


def _inner(shape: Geometry, rank: int, last: Array, middle: Array) -> Pair:
    """The core and the last factor as the channel cut of the second layer."""
    way = Scheme("channel", tuple(range(len(shape.kernel))))
    groups = len(middle)
    first = np.swapaxes(middle, 2, 3).reshape(groups, rank, -1)  # [s, (r, places)]
    return Pair(way, rank, first, last[:, :, None, :], np.zeros(shape.out * groups))


def effective(shape: Geometry, made: Pair) -> Array:
    """The one matrix that a pair stands for, [groups, out, d] in the layer's own order."""
    order = made.scheme.order(shape)
    found = np.empty((shape.groups, shape.out, shape.features))
    for g in range(shape.groups):
        found[g][:, order] = product(made.second[g], made.first[g])
    return found


def relative_error(site: Site, made: Pair) -> float:
    """E|y - y'|^2 over the variance of y (without statistics: of the weights alone)."""
    matrix = site.layer.matrix().astype(np.float64)
    change = effective(site.shape, made) - matrix
    moments = site.moments
    if moments is None:
        return float(np.square(change).sum() / np.square(matrix).sum())
    return max(output_error(moments, change), 0.0) / output_error(moments, matrix)


def decibels(relative: float) -> float:
    """Signal to noise in dB; 300 stands for an exact result."""
    return -10 * log10(max(relative, 1e-30))


def rows_wanted(site: Site) -> int:
    """How many rows the statistics still lack to have as many as there are features."""
    moments = site.moments
    return 0 if moments is None else max(site.shape.features - moments.n, 0)


def problems(shape: Geometry, scheme: Scheme, matrix: Array, covariance: Array) -> list[Problem]:
    """One per group."""
    return [
        problem(w, c, scheme.order(shape), scheme.places(shape))
        for w, c in zip(matrix, covariance, strict=True)
    ]


def mixed(moments: Moments | None, shape: Geometry, damping: float) -> Array:
    """The covariance with a share of the identity, [groups, d, d]; without moments that alone."""
    if moments is None:
        size = shape.features
        return np.broadcast_to(np.eye(size), (shape.groups, size, size))
    return damped(moments.covariance(), damping)


def held_covariance(site: Site) -> Array | None:
    """E[(x - mu)(x - mu)^T] of the samples held out around the mean of the others, by group."""
    if site.fit is None or site.held is None:
        return None
    apart: Array = site.held.mean - site.fit.mean
    found: Array = site.held.covariance() + apart[:, :, None] * apart[:, None, :]
    return found
