"""What a layer loses when inputs go and the others are fitted to make up for them.

With C the covariance of the inputs, H = C^-1 and P the columns removed, the least mean squared
error of the output W x over all weights of the columns that stay, and over the bias, is
tr(W_P (H_PP)^-1 W_P^T) (Frantar, Singh and Alistarh 2022, Optimal Brain Compression, eq. 3-5, for
sets of columns). Columns go greedily; H and W are downdated after each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dpotrf, dpotri

from onnxslim.analyses.builder import mirror
from onnxslim.ir import Array
from onnxslim.passes.prune.evidence import power

_BATCHES = 16  # steps of a greedy run; the units of one step go together
_COUNTED = 2  # steps after which losses are counted again
_MORE = (0.0, 1e-12, 1e-9, 1e-6, 1e-3)  # of the largest variance, until there is a factor


@dataclass
class Consumer:
    """A layer that reads units: weight [out, d], covariance [d, d] that can be inverted, its
    columns by unit, and the covariance [d, d] on other samples that losses are counted on.

    `weight` and `inverse` are those of the columns that are left, whose numbers are `left`.
    """

    weight: Array
    covariance: Array
    blocks: list[Array]
    judge: Array | None = None

    def __post_init__(self) -> None:
        self.original: Array = self.weight.astype(np.float64)
        self.weight = self.original
        self.left: Array = np.arange(self.weight.shape[1])
        self.where: Array = np.array(self.left)
        if self.judge is not None:  # sums of errors: float32 is exact enough, and twice as fast
            self.judge = self.judge.astype(np.float32)
        counted = self.covariance if self.judge is None else self.judge
        self.power = max(power(self.original, counted), 1e-30)
        self.inverse: Array = inverse(self.covariance)
        self.gone = 0.0

    def losses(self, units: Sequence[int]) -> Array:
        """The loss of each unit alone, relative to the power of the output."""
        sizes = {self.blocks[unit].size for unit in units}
        if len(sizes) == 1:
            return self._together(np.stack([self.blocks[unit] for unit in units]))
        return np.array([self._together(self.blocks[unit][None])[0] for unit in units])

    def _together(self, blocks: Array) -> Array:
        """Blocks of equal size, [n, b]."""
        if blocks.shape[1] == 0:
            return np.zeros(len(blocks))
        places: Array = self.where[blocks]
        columns: Array = np.transpose(self.weight[:, places], (1, 2, 0))  # [n, b, out]
        gram: Array = np.matmul(columns, np.swapaxes(columns, 1, 2))
        part: Array = self.inverse[places[:, :, None], places[:, None, :]]
        solved: Array = np.linalg.solve(part, gram)
        return np.asarray(np.trace(solved, axis1=1, axis2=2) / self.power)

    def remove(self, units: Sequence[int]) -> None:
        """Take units out and fit the rest."""
        columns = self.where[np.concatenate([self.blocks[unit] for unit in units])]
        if columns.size == 0:
            return
        root = _root(self.inverse[np.ix_(columns, columns)])
        stays = np.delete(np.arange(self.left.size), columns)
        # with H_PP = L L^T: R = L^-1 H_PK and V = L^-1 W_P^T
        rows: Array = solve_triangular(root, self.inverse[np.ix_(columns, stays)], lower=True)
        lost: Array = solve_triangular(root, np.transpose(self.weight[:, columns]), lower=True)
        self.weight = self.weight[:, stays] - np.transpose(lost) @ rows
        self.inverse = _less(self.inverse.take(stays, axis=0).take(stays, axis=1), rows)
        self.left = self.left[stays]
        self.where[self.left] = np.arange(self.left.size)
        self.gone += float(np.sum(np.square(lost)))

    def loss(self) -> float:
        """Of all that is gone, relative to the power of the output."""
        if self.judge is None:
            return self.gone / self.power
        change: Array = self.original.copy()
        change[:, self.left] -= self.weight
        return power(change, self.judge) / self.power


def _less(matrix: Array, rows: Array) -> Array:
    """A - R^T R for symmetric A [d, d] and R [b, d], in place of A."""
    found: Array = np.transpose(
        dsyrk(-1.0, np.transpose(rows), beta=1.0, c=np.transpose(matrix), lower=1, overwrite_c=1)
    )
    mirror(found[None])
    return found


def _root(part: Array) -> Array:
    """The lower Cholesky factor, of a little more than the matrix where rounding has left it
    without one."""
    level = float(np.abs(np.diagonal(part)).max())
    for more in _MORE:
        with suppress(np.linalg.LinAlgError):
            return np.asarray(np.linalg.cholesky(part + more * level * np.eye(len(part))))
    return np.asarray(np.sqrt(level) * np.eye(len(part)))


def inverse(covariance: Array) -> Array:
    """Of a symmetric positive definite matrix; half the work of a general one."""
    root, failed = dpotrf(np.transpose(covariance), lower=1, clean=0)
    found, failed = dpotri(root, lower=1, overwrite_c=1) if not failed else (root, failed)
    if failed:  # so badly conditioned that rounding leaves a negative pivot
        return np.asarray(np.linalg.inv(covariance))
    upper: Array = np.transpose(found)
    mirror(upper[None])
    return upper


def greedy(consumers: Sequence[Consumer], count: int, most: int) -> tuple[list[int], Array]:
    """Units in the order in which they go, `most` of them, and the loss after each of them.

    The loss is summed over consumers and counted after every other step; in between it is a line.
    """
    alive = list(range(count))
    order: list[int] = []
    at, losses = [0], [0.0]
    step = max(1, most // _BATCHES)
    while len(order) < most:
        scores = np.zeros(len(alive))
        for consumer in consumers:
            scores = scores + consumer.losses(alive)
        take = min(step, most - len(order))
        chosen = [alive[int(i)] for i in np.argsort(scores, kind="stable")[:take]]
        for consumer in consumers:
            consumer.remove(chosen)
        order += chosen
        if len(order) == most or len(order) >= at[-1] + _COUNTED * step:
            at.append(len(order))
            losses.append(max(losses[-1], sum(consumer.loss() for consumer in consumers)))
        gone = set(chosen)
        alive = [unit for unit in alive if unit not in gone]
    return order, np.interp(np.arange(len(order) + 1), at, losses)


def ranked(scores: Array, most: int) -> tuple[list[int], Array]:
    """Units by a score of each, the least first, and the sum of the scores that are gone."""
    order = np.argsort(scores, kind="stable")[:most]
    total = max(float(scores.sum()), 1e-30)
    return [int(i) for i in order], np.concatenate([[0.0], np.cumsum(scores[order]) / total])
