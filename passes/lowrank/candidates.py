"""What could be done to each layer: every cut at every rank, with its cost and its loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd, log10

import numpy as np

from onnxslim.analyses.layer_stats import output_error
from onnxslim.ir import Array
from onnxslim.passes.lowrank.emit import Pair
from onnxslim.passes.lowrank.schemes import Geometry, Scheme, schemes
from onnxslim.passes.lowrank.survey import Site
from onnxslim.passes.lowrank.svd import (
    Basis,
    Problem,
    basis,
    damped,
    factors,
    problem,
    product,
)

_DAMPING = 1e-4  # of the covariance towards the identity
_DAMPING_FEW = 1e-2  # the same where there are fewer rows than features


@dataclass(frozen=True)
class Cut:
    """One way to cut one layer, worked out for all its ranks."""

    scheme: Scheme
    step: int  # ranks are multiples of it
    bases: tuple[Basis, ...]  # one per group
    loss: Array  # relative to the variance of the output, by rank from 0, [n + 1]
    macs_per_rank: int

    def ranks(self, limit: int) -> range:
        """The ranks worth having."""
        return range(self.step, min(limit, len(self.loss) - 1) + 1, self.step)


@dataclass(frozen=True)
class Candidate:
    """A layer cut at a rank, or left as it is (`cut` None)."""

    cut: Cut | None
    rank: int
    macs: int
    loss: float  # relative to the variance of the output


def cuts(site: Site, scheme: str, multiple: int) -> list[Cut]:
    """All cuts of a layer that have a rank for which they cost less than the layer."""
    found: list[Cut] = []
    matrix = site.layer.matrix().astype(np.float64)
    covariance = _covariance(site)
    step = multiple // gcd(multiple, site.shape.groups)
    for way in schemes(site.shape, scheme):
        limit = way.useful_ranks(site.shape)
        if limit < step:
            continue
        tasks = [_problem(site.shape, way, w, c) for w, c in zip(matrix, covariance, strict=True)]
        bases = tuple(basis(task, limit) for task in tasks)
        energy = sum(task.energy() for task in tasks)
        if energy <= 0:
            return []
        length = min(len(b.loss) for b in bases)
        loss = np.sum([b.loss[:length] for b in bases], axis=0) / energy
        found.append(Cut(way, step, bases, loss, way.macs_per_rank(site.shape)))
    return found


def candidates(site: Site, found: list[Cut]) -> list[Candidate]:
    """The layer as it is, then every useful cut and rank that no other beats in cost and loss."""
    options = [
        Candidate(cut, rank, rank * cut.macs_per_rank, float(cut.loss[rank]))
        for cut in found
        for rank in cut.ranks(cut.scheme.useful_ranks(site.shape))
    ]
    kept = [Candidate(None, 0, site.shape.macs, 0.0)]
    for option in sorted(options, key=lambda o: (o.loss, o.macs)):
        if option.macs < kept[-1].macs:
            kept.append(option)
    return kept


def pair(site: Site, cut: Cut, rank: int) -> Pair:
    """The factors of a cut at a rank, and how the bias makes up for the mean."""
    matrix = site.layer.matrix().astype(np.float64)
    covariance = _covariance(site)
    firsts: list[Array] = []
    seconds: list[Array] = []
    for w, c, found in zip(matrix, covariance, cut.bases, strict=True):
        second, first = factors(_problem(site.shape, cut.scheme, w, c), found, rank)
        firsts.append(first)
        seconds.append(second)
    made = Pair(cut.scheme, rank, np.stack(firsts), np.stack(seconds), np.zeros(0))
    if site.moments is None:
        return replace(made, shift=np.zeros(site.layer.out_features))
    change = matrix - effective(site.shape, made)
    shift = (change @ site.moments.mean[:, :, None]).ravel()
    return replace(made, shift=shift)


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
    if site.moments is None:
        return float(np.square(change).sum() / np.square(matrix).sum())
    return output_error(site.moments, change) / output_error(site.moments, matrix)


def decibels(relative: float) -> float:
    """Signal to noise in dB; 300 stands for an exact result."""
    return -10 * log10(max(relative, 1e-30))


def rows_wanted(site: Site) -> int:
    """How many rows the statistics still lack to have as many as there are features."""
    return 0 if site.moments is None else max(site.shape.features - site.moments.n, 0)


def _covariance(site: Site) -> Array:
    if site.moments is None:
        size = site.shape.features
        return np.broadcast_to(np.eye(size), (site.shape.groups, size, size))
    share = _DAMPING_FEW if rows_wanted(site) else _DAMPING
    return damped(site.moments.covariance(), share)


def _problem(shape: Geometry, scheme: Scheme, matrix: Array, covariance: Array) -> Problem:
    return problem(matrix, covariance, scheme.order(shape), scheme.places(shape))
