"""The best pair of linear maps in place of one, for inputs with a given covariance.

A layer y = W x + b is replaced by y' = H (V x) + b', where V maps the row x to r numbers at each of
c places and H maps those r c numbers to the outputs. With one place (c = 1) H V is any matrix of
rank r, and the optimum in E|y - y'|^2 is the truncated SVD of W C^1/2 (Eckart and Young 1936;
whitened by the inputs as in SVD-LLM, arXiv 2403.07378; by the outputs as in Zhang et al. 2015,
arXiv 1505.06798: both give the same map). It is computed as U U^T W with U the leading eigenvectors
of W C W^T, which inverts nothing and so holds for a rank-deficient C. With more places (a kernel
split along its axes, Jaderberg et al. 2014, arXiv 1405.3866) V comes from the same problem with the
covariance averaged over the places, and H is then the least squares fit, which is exact.

The mean is left to the bias, b' = b + (W - W') m, so C is the covariance, not the second moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxslim.ir import Array

_EIGEN_FLOOR = 1e-15  # relative to the largest: what `eigh` cannot tell from zero
_RIDGE = 1e-10  # relative to the mean eigenvalue of the Gram matrix of the r c numbers


@dataclass(frozen=True)
class Problem:
    """One group of a layer, its features ordered as places x features of one place."""

    weight: Array  # [out, c, m] float64
    covariance: Array  # [c, m, c, m] float64

    @property
    def places(self) -> int:
        """c: how many results of the first factor the second one sees at once."""
        return int(self.weight.shape[1])

    def energy(self) -> float:
        """tr(W C W^T): the variance of all outputs together."""
        return self._energy

    @cached_property
    def _energy(self) -> float:
        return quadratic(self.weight.reshape(len(self.weight), -1), _square(self.covariance))

    def elsewhere(self, covariance: Array) -> Problem:
        """The same layer for rows of another covariance, [c, m, c, m]."""
        return Problem(self.weight, covariance)


@dataclass(frozen=True)
class Basis:
    """The first factor for every rank, best direction first: rank r takes the first r.

    `first` is [n, m], `second` [out, c, n] is its counterpart: at full rank they multiply to W.
    `loss[r]` is E|y - y'|^2 with the best second factor at rank r, [n + 1].
    """

    first: Array
    second: Array
    loss: Array


def problem(matrix: Array, covariance: Array, order: Array, places: int) -> Problem:
    """W [out, d] and C [d, d] with the features taken in `order` (place slowest)."""
    out, size = len(matrix), len(order) // places
    weight = matrix.astype(np.float64)[:, order].reshape(out, places, size)
    ordered = covariance[np.ix_(order, order)]
    return Problem(weight, ordered.reshape(places, size, places, size))


def quadratic(change: Array, covariance: Array) -> float:
    """tr(dW C dW^T): the mean squared norm of dW x for centred x. Cost: out d^2."""
    return float(np.sum((change @ covariance) * change))


def damped(covariance: Array, share: float) -> Array:
    """(1 - share) C + share tr(C)/d I: directions that too few rows did not show keep some weight.

    A covariance of zero stays zero. [.., d, d] -> [.., d, d].
    """
    size = covariance.shape[-1]
    level = np.trace(covariance, axis1=-2, axis2=-1) / size
    mixed: Array = (1 - share) * covariance + share * level[..., None, None] * np.eye(size)
    return mixed


def basis(task: Problem, limit: int) -> Basis:
    """The directions of the first `limit` ranks and the loss at each. Cost: min(out c, m)^3."""
    out, places, size = task.weight.shape
    tall = task.weight.reshape(out * places, size)
    average = np.einsum("aman->mn", task.covariance) if places > 1 else _square(task.covariance)
    left, power = _directions(tall, average, min(limit, size, out * places))
    first: Array = np.transpose(left) @ tall
    second = left.reshape(out, places, -1)
    if places == 1:
        tail = max(task.energy() - float(power.sum()), 0.0)  # beyond the limit
        loss = np.append(np.cumsum(power[::-1])[::-1], 0.0) + tail
        return Basis(first, second, loss)
    return Basis(first, second, _nested_loss(task, first))


def _directions(tall: Array, average: Array, count: int) -> tuple[Array, Array]:
    """Leading left singular vectors of M C^1/2, [rows, n], and the squared singular values, [n]."""
    rows, size = tall.shape
    if rows <= size:
        power: Array = tall @ average @ np.transpose(tall)
        values, vectors = np.linalg.eigh(power)
        keep = _leading(values, count)
        return vectors[:, keep], values[keep]
    roots, axes = np.linalg.eigh(average)
    root: Array = (axes * np.sqrt(np.maximum(roots, 0))) @ np.transpose(axes)
    white: Array = tall @ root
    gram: Array = np.transpose(white) @ white
    values, vectors = np.linalg.eigh(gram)
    keep = _leading(values, count)
    left, _ = np.linalg.qr(white @ vectors[:, keep])
    return left, values[keep]


def _leading(values: Array, count: int) -> Array:
    order = np.argsort(values)[::-1]
    floor = _EIGEN_FLOOR * len(values) * max(float(values.max()), 0.0)
    return order[: min(count, max(int(np.sum(values > floor)), 1))]


def _nested_loss(task: Problem, first: Array) -> Array:
    """E|y - H V_r x|^2 with the best H for r = 0 .. n: one Cholesky factor, read row by row."""
    from scipy.linalg import solve_triangular

    rank, places = len(first), task.places
    gram, cross = _flat_equations(task, first)
    lower = np.linalg.cholesky(gram + ridge(gram))
    share = np.square(solve_triangular(lower, cross, lower=True)).sum(axis=1)
    explained = np.append(0.0, np.cumsum(share.reshape(rank, places).sum(axis=1)))
    return np.maximum(task.energy() - explained, 0.0)


def loss_elsewhere(
    task: Problem, found: Basis, elsewhere: Problem, ranks: Sequence[int]
) -> dict[int, float]:
    """E|y - H V_r x|^2 of the pairs fitted to `task` where the covariance is another one.

    Its covariance there is E[(x - mu)(x - mu)^T] of rows that the fit has not seen, around the mean
    mu of those that it has: the bias is fitted too.
    """
    if task.places == 1:
        left = found.second[:, 0, :]
        flat = task.weight.reshape(len(task.weight), -1)
        seen: Array = np.transpose(left) @ flat
        kept = np.cumsum(np.sum((seen @ _square(elsewhere.covariance)) * seen, axis=1))
        whole = elsewhere.energy()
        return {r: max(whole - float(kept[r - 1]), 0.0) for r in ranks}
    return _nested_elsewhere(task, found.first, elsewhere, ranks)


def _nested_elsewhere(
    task: Problem, first: Array, elsewhere: Problem, ranks: Sequence[int]
) -> dict[int, float]:
    from scipy.linalg import solve_triangular

    gram, cross = _flat_equations(task, first)
    gram_there, cross_there = _flat_equations(elsewhere, first)
    lower = np.linalg.cholesky(gram + ridge(gram))
    half = solve_triangular(lower, cross, lower=True)
    errors: dict[int, float] = {}
    whole = elsewhere.energy()
    for rank in ranks:
        n = rank * task.places
        factor = solve_triangular(lower[:n, :n], half[:n], lower=True, trans="T")  # H_r^T
        spread = float(np.sum(factor * (gram_there[:n, :n] @ factor)))
        shared = float(np.sum(factor * cross_there[:n]))
        errors[rank] = max(whole - 2 * shared + spread, 0.0)
    return errors


def _flat_equations(task: Problem, first: Array) -> tuple[Array, Array]:
    """The normal equations with the rank slowest, [n c, n c] and [n c, out]."""
    gram, cross = normal_equations(task, first)
    size = len(first) * task.places
    square: Array = np.transpose(gram, (1, 0, 3, 2)).reshape(size, size)
    return square, np.transpose(cross, (1, 0, 2)).reshape(size, len(task.weight))


def normal_equations(task: Problem, first: Array) -> tuple[Array, Array]:
    """E[z z^T] as [c, n, c, n] and E[z y^T] as [c, n, out], for z = V x at each place."""
    seen: Array = np.tensordot(first, task.covariance, axes=(1, 1))  # [n, c, c', m]
    gram: Array = np.tensordot(seen, first, axes=(3, 1))  # [n, c, c', n']
    cross: Array = np.tensordot(seen, task.weight, axes=((2, 3), (1, 2)))  # [n, c, out]
    return np.transpose(gram, (1, 0, 2, 3)), np.transpose(cross, (1, 0, 2))


def ridge(gram: Array) -> Array:
    """What keeps a Gram matrix invertible, [n, n]."""
    level = float(np.trace(gram)) / len(gram)
    return np.eye(len(gram)) * (_RIDGE * level if level > 0 else 1.0)


def factors(task: Problem, found: Basis, rank: int) -> tuple[Array, Array]:
    """H [out, c, r] and V [r, m]: scaled so that numbers between them and the columns of H are
    about equally large (both quantize well). Raises ValueError for a rank out of range."""
    if not 1 <= rank <= len(found.first):
        raise ValueError(f"rank {rank} given, expected 1 to {len(found.first)}")
    first, second = found.first[:rank], found.second[:, :, :rank]
    if task.places > 1:
        second = second + _correction(task, first, second)
    return balanced(task, first, second)


def _correction(task: Problem, first: Array, second: Array) -> Array:
    """What least squares adds to H; zero where H V = W already, so that full rank stays exact."""
    rank, places, out = len(first), task.places, len(task.weight)
    gram, cross = normal_equations(task, first)
    square = gram.reshape(places * rank, places * rank)
    now: Array = second.reshape(out, -1)
    wanted: Array = cross.reshape(places * rank, out) - square @ np.transpose(now)
    added: Array = np.linalg.solve(square + ridge(square), wanted)
    return np.transpose(added).reshape(out, places, rank)


def balanced(task: Problem, first: Array, second: Array) -> tuple[Array, Array]:
    """H [out, c, r] and V [r, m] of the same product: the spread of each number between them is
    the norm of what reads it."""
    average = np.einsum("aman->mn", task.covariance) / task.places
    spread = np.sqrt(np.maximum(np.sum((first @ average) * first, axis=1), 0))
    size = np.sqrt(np.square(second).sum(axis=(0, 1)))
    usable = (spread > 0) & (size > 0)
    scale = np.sqrt(np.where(usable, size, 1.0) / np.where(usable, spread, 1.0))
    return second / scale, first * scale[:, None]


def product(second: Array, first: Array) -> Array:
    """H V as one matrix over the ordered features: [out, c, r], [r, m] -> [out, c m]."""
    return np.tensordot(second, first, axes=(2, 0)).reshape(len(second), -1)


def _square(covariance: Array) -> Array:
    places, size = covariance.shape[:2]
    return covariance.reshape(places * size, places * size)
