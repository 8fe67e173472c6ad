"""Tucker-2 in the norm of the inputs: 1x1 to r numbers, the kernel on those to s, 1x1 to outputs.

y' = U G (V x_1 .. V x_c): V [r, m] works at each of c places of the kernel, G [s, c, r] is the
core and U [out, s] the last factor (Kim et al. 2016, arXiv 1511.06530, whose norm is that of the
weights). Here E|y - y'|^2 = |(W - W') C^1/2|^2 falls by alternating least squares: for a given V
the best U and G are a reduced-rank regression on z = V x (Izenman 1975), an eigenproblem; for
given U and G the best V solves a linear system, by conjugate gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.lowrank.svd import Problem, normal_equations, ridge

_SWEEPS = 4
_STEPS = 8  # of conjugate gradients
_ENOUGH = 1e-3  # relative gain of a sweep below which it is the last


@dataclass(frozen=True)
class Core:
    """The best U and G for a given V, all ranks s at once: rank s takes the first s.

    `last` [out, n] has orthonormal columns, `core` [n, c, r]; `loss[s]` is E|y - y'|^2, [n + 1].
    """

    last: Array
    core: Array
    loss: Array


def core(task: Problem, first: Array) -> Core:
    """Reduced-rank regression of y on V x at all places. Cost: (c r)^3 + out^3."""
    gram, cross = _flat(task, first)
    map_: Array = np.linalg.solve(gram + ridge(gram), cross)  # [c r, out]
    explained: Array = np.transpose(cross) @ map_
    values, vectors = np.linalg.eigh((explained + np.transpose(explained)) / 2)
    order = np.argsort(values)[::-1][: min(len(gram), len(values))]
    last: Array = vectors[:, order]
    middle: Array = np.transpose(map_ @ last).reshape(len(order), task.places, len(first))
    kept = np.append(0.0, np.cumsum(np.maximum(values[order], 0.0)))
    return Core(last, middle, np.maximum(task.energy() - kept, 0.0))


def core_elsewhere(
    first: Array, found: Core, elsewhere: Problem, ranks: Sequence[int]
) -> dict[int, float]:
    """Like `svd.loss_elsewhere`: the loss where the covariance is another one, by rank s."""
    gram, cross = _flat(elsewhere, first)
    rows = found.core.reshape(len(found.core), -1)  # [n, c r]
    spread = np.sum((rows @ gram) * rows, axis=1)
    shared = np.sum((rows @ cross) * np.transpose(found.last), axis=1)
    kept = np.cumsum(2 * shared - spread)
    whole = elsewhere.energy()
    return {s: max(whole - float(kept[s - 1]), 0.0) for s in ranks}


def tucker(task: Problem, first: Array, rank: int) -> tuple[Array, Array, Array]:
    """U [out, s], G [s, c, r] and V [r, m] from a V to start with; never worse than with that V."""
    found = core(task, first)
    best = first, found, float(found.loss[rank])
    for _ in range(_SWEEPS):
        moved = _first(task, found.last[:, :rank], found.core[:rank], first)
        found, first = core(task, moved), moved
        loss = float(found.loss[rank])
        if loss >= best[2] * (1 - _ENOUGH):
            break
        best = moved, found, loss
    first, found, _ = best
    return found.last[:, :rank], found.core[:rank], first


def _first(task: Problem, last: Array, middle: Array, start: Array) -> Array:
    """Nearer to the V of least squares for given U and G: some steps of conjugate gradients on
    sum_pq K_pq V C_qp = sum_p B_p^T (W C)_p with B_p = U G_p and K_pq = G_p^T G_q."""
    places, size = task.places, task.weight.shape[2]
    seen = np.tensordot(task.weight, task.covariance, axes=((1, 2), (0, 1)))  # [out, c, m]
    reads = np.tensordot(last, middle, axes=(1, 0))  # B, [out, c, r]
    wanted: Array = np.tensordot(reads, seen, axes=((0, 1), (0, 1)))  # [r, m]
    pairs = np.tensordot(middle, middle, axes=(0, 0))  # [c, r, c, r]
    rank = len(start)
    weights = np.transpose(pairs, (1, 0, 2, 3)).reshape(rank, -1)  # [r, c c r]
    turned = np.transpose(task.covariance, (1, 2, 0, 3)).reshape(size, -1)  # C_qp, [m, p q m]

    def apply(v: Array) -> Array:
        moved = (v @ turned).reshape(rank, places * places, size)  # [r, p q, m]
        stacked: Array = np.transpose(moved, (1, 0, 2)).reshape(-1, size)
        return weights @ stacked

    return _conjugate_gradients(apply, wanted, start)


def _conjugate_gradients(apply: Callable[[Array], Array], wanted: Array, start: Array) -> Array:
    """Hestenes and Stiefel 1952; the operator is symmetric and positive."""
    found: Array = start.copy()
    left: Array = wanted - apply(found)
    toward: Array = left.copy()
    power = float(np.sum(left * left))
    for _ in range(_STEPS):
        if power <= 0:
            break
        image: Array = apply(toward)
        curve = float(np.sum(toward * image))
        if curve <= 0:
            break
        found += (power / curve) * toward
        left -= (power / curve) * image
        now = float(np.sum(left * left))
        toward = left + (now / power) * toward
        power = now
    return found


def _flat(task: Problem, first: Array) -> tuple[Array, Array]:
    """Normal equations of z = V x with the place slowest, [c r, c r] and [c r, out]."""
    gram, cross = normal_equations(task, first)
    size = task.places * len(first)
    return gram.reshape(size, size), cross.reshape(size, len(task.weight))
