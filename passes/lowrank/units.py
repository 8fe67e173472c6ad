"""What is chosen as one: a layer, or the layers that read the same rows and may share a factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.lowrank.budget import Option, hull
from onnxslim.passes.lowrank.candidates import (
    Candidate,
    Cut,
    Unit,
    dampings,
    frontier,
    held_covariance,
    mixed,
)
from onnxslim.passes.lowrank.emit import Pair, can_pivot
from onnxslim.passes.lowrank.joint import member_losses, shared_factors, stacked
from onnxslim.passes.lowrank.pivot import ranks, shared
from onnxslim.passes.lowrank.schemes import Scheme
from onnxslim.passes.lowrank.survey import Site
from onnxslim.passes.lowrank.svd import basis, product

JOINT, JOINT_PIVOTED = Scheme("joint"), Scheme("joint", pivoted=True)


@dataclass(frozen=True)
class Joint:
    """A common first factor of layers that read the same, judged at the ranks worth having."""

    damping: float
    weights: tuple[float, ...]  # of the layers' squared errors
    cuts: tuple[Cut, ...]  # what each layer loses by rank

    @property
    def scheme(self) -> Scheme:
        """How the layers are cut."""
        return self.cuts[0].scheme

    def at(self, scheme: Scheme, ranks: range) -> Joint | None:
        """The same cut in another form, at its ranks; None where there are none."""
        cuts = tuple(
            Cut(
                scheme,
                c.damping,
                *({r: of[r] for r in ranks if r in of} for of in (c.loss, c.within)),
            )
            for c in self.cuts
        )
        return Joint(self.damping, self.weights, cuts) if cuts[0].loss else None


@dataclass(frozen=True)
class Choice:
    """One thing that can be done to the layers of a group: a candidate for each."""

    parts: tuple[Candidate, ...]
    joint: Joint | None = None

    def cost(self, unit: Unit) -> float:
        """Of all layers."""
        return sum(part.cost(unit) for part in self.parts)

    def loss(self, weights: Sequence[float]) -> float:
        """Weighted, of all layers."""
        return sum(w * part.loss for w, part in zip(weights, self.parts, strict=True))

    @property
    def whole(self) -> bool:
        """Whether all layers stay as they are."""
        return all(part.cut is None for part in self.parts)


def groups(sites: Sequence[Site]) -> list[tuple[int, ...]]:
    """The layers by what they read: alone, but for products of the same rows in one graph."""
    found: dict[object, list[int]] = {}
    for i, site in enumerate(sites):
        layer = site.layer
        shared = layer.tap.window is None and site.fit is not None
        key = (layer.kind, layer.tap, id(layer.node.graph), str(layer.weight.dtype))
        found.setdefault(key if shared else i, []).append(i)
    return [tuple(members) for members in found.values()]


def joint_cuts(sites: Sequence[Site], gains: Sequence[float], step: int) -> list[Joint]:
    """The cuts of layers that read the same at the ranks that make them cheaper: with a second
    factor for each of all its outputs, and pivoted."""
    size, out = sites[0].shape.features, sum(site.shape.out for site in sites)
    plain = range(step, min((size * out - 1) // (size + out), size, out) + 1, step)
    pivoting = all(can_pivot(site.layer) for site in sites)
    forms = {JOINT: plain, JOINT_PIVOTED: ranks(size, out, step) if pivoting else range(0)}
    wanted = sorted({r for some in forms.values() for r in some})
    found = _joint_cut(sites, gains, wanted)
    if found is None:
        return []
    made = [found.at(scheme, some) for scheme, some in forms.items()]
    return [joint for joint in made if joint is not None]


def _joint_cut(
    sites: Sequence[Site], gains: Sequence[float], wanted: Sequence[int]
) -> Joint | None:
    """The best damping of a cut at these ranks; None where it cannot be judged."""
    first = sites[0]
    if first.fit is None or not wanted:
        return None
    sizes = [site.shape.out for site in sites]
    matrices = [site.layer.matrix()[0].astype(np.float64) for site in sites]
    held = held_covariance(first)
    best: tuple[float, Joint] | None = None
    for damping in dampings(first):
        covariance = mixed(first.fit, first.shape, damping)[0]
        powers = [float(np.sum((w @ covariance) * w)) for w in matrices]
        if min(powers) <= 0:
            return None
        weights = tuple(gain / power for gain, power in zip(gains, powers, strict=True))
        task = stacked(matrices, weights, covariance)
        found = basis(task, wanted[-1])
        some = [r for r in wanted if r <= len(found.first)]
        within = member_losses(task, found, covariance, sizes, some)
        apart, whole = within, powers
        if held is not None:
            apart = member_losses(task, found, held[0], sizes, some)
            whole = [float(np.sum((w @ held[0]) * w)) for w in matrices]
        cuts = tuple(
            Cut(
                JOINT,
                damping,
                {r: float(apart[r][i]) / weights[i] / max(whole[i], 1e-300) for r in some},
                {r: float(within[r][i]) / weights[i] / powers[i] for r in some},
            )
            for i in range(len(sites))
        )
        total = sum(g * sum(c.loss.values()) for g, c in zip(gains, cuts, strict=True))
        if some and (best is None or total < best[0]):
            best = total, Joint(damping, weights, cuts)
    return None if best is None else best[1]


def joint_choices(sites: Sequence[Site], joint: Joint) -> list[Choice]:
    """The common factor at every rank; the first layer bears its cost, and gets what is saved
    where outputs of the layers are what it gives."""
    size, rows = sites[0].shape.features, sites[0].shape.rows
    found: list[Choice] = []
    for rank in joint.cuts[0].loss:
        parts = [
            Candidate(cut, rank, rows * rank * n, rank * n, cut.loss[rank])
            for cut, site in zip(joint.cuts, sites, strict=True)
            for n in (site.shape.out,)
        ]
        shared = rank * (size - rank if joint.scheme.pivoted else size)
        parts[0] = replace(
            parts[0], macs=parts[0].macs + rows * shared, params=parts[0].params + shared
        )
        found.append(Choice(tuple(parts), joint))
    return found


def separate_choices(
    options: Sequence[Sequence[Candidate]], weights: Sequence[float], unit: Unit
) -> list[Choice]:
    """The layers cut each by itself: what a budget would take one after the other."""
    fronts = [frontier(layer, unit) for layer in options]
    if len(fronts) == 1:
        return [Choice((candidate,)) for candidate in fronts[0]]
    rows = [
        [Option(c.cost(unit), w * c.loss) for c in front]
        for front, w in zip(fronts, weights, strict=True)
    ]
    steps: list[tuple[float, int, int]] = []
    for i, row in enumerate(rows):
        slope = 0.0
        for a, b in pairwise(hull(row)):
            slope = max(slope, (row[b].loss - row[a].loss) / (row[a].cost - row[b].cost))
            steps.append((slope, i, b))
    now = [0] * len(fronts)
    found = [Choice(tuple(front[0] for front in fronts))]
    for _, i, to in sorted(steps, key=lambda step: step[0]):
        now[i] = to
        found.append(Choice(tuple(f[at] for f, at in zip(fronts, now, strict=True))))
    return found


def joint_pairs(sites: Sequence[Site], joint: Joint, rank: int) -> list[Pair]:
    """The factors from all samples: each layer's pair with the same first factor."""
    moments = sites[0].moments
    assert moments is not None
    matrices = [site.layer.matrix()[0].astype(np.float64) for site in sites]
    task = stacked(matrices, joint.weights, mixed(moments, sites[0].shape, joint.damping)[0])
    sizes = [len(w) for w in matrices]
    first, seconds = shared_factors(task, basis(task, rank), rank, sizes, joint.weights)
    known: list[Array | None] = [None] * len(sites)
    if joint.scheme.pivoted:
        first, seconds, known = shared(first, seconds, [g**0.5 for g in joint.weights])
    return [
        Pair(joint.scheme, rank, first[None], second[None, :, None, :],
             (w - product(second[:, None, :], first)) @ moments.mean[0], direct=outputs)
        for w, second, outputs in zip(matrices, seconds, known, strict=True)
    ]  # fmt: skip
