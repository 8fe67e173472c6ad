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
from scipy.linalg.lapack import dpotrf, dpotri

from onnxslim.analyses.builder import mirror
from onnxslim.ir import Array
from onnxslim.passes.prune.evidence import power

_BATCHES = 16  # steps of a greedy run; the units of one step go together
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
        self.judged = 0.0  # the loss so far, where others are judged on

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

    def remove(self, units: Sequence[int]) -> float:
        """Take units out, fit the rest, and say what that adds to the loss."""
        columns = self.where[np.concatenate([self.blocks[unit] for unit in units])]
        if columns.size == 0:
            return 0.0
        root = _root(self.inverse[np.ix_(columns, columns)])
        stays = np.ones(self.left.size, np.bool_)
        stays[columns] = False
        # with H_PP = L L^T: R = L^-1 H_PK and V = L^-1 W_P^T
        rows: Array = solve_triangular(root, self.inverse[np.ix_(columns, stays)], lower=True)
        lost: Array = solve_triangular(root, np.transpose(self.weight[:, columns]), lower=True)
        self.weight = self.weight[:, stays] - np.transpose(lost) @ rows
        self.inverse = self.inverse[stays][:, stays]
        self.inverse -= np.transpose(rows) @ rows
        self.left = self.left[stays]
        self.where[self.left] = np.arange(self.left.size)
        if self.judge is None:
            return float(np.sum(np.square(lost))) / self.power
        change: Array = self.original.copy()
        change[:, self.left] -= self.weight
        before, self.judged = self.judged, power(change, self.judge) / self.power
        return self.judged - before


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
    """Units in the order in which they go, `most` of them, and the loss after each step of one.

    The loss is summed over consumers; within a step it is spread evenly.
    """
    alive = list(range(count))
    order: list[int] = []
    losses = [0.0]
    step = max(1, most // _BATCHES)
    while len(order) < most:
        scores = np.zeros(len(alive))
        for consumer in consumers:
            scores = scores + consumer.losses(alive)
        take = min(step, most - len(order))
        chosen = [alive[int(i)] for i in np.argsort(scores, kind="stable")[:take]]
        loss = sum(consumer.remove(chosen) for consumer in consumers)
        losses += [losses[-1] + max(loss, 0.0) * (i + 1) / take for i in range(take)]
        order += chosen
        gone = set(chosen)
        alive = [unit for unit in alive if unit not in gone]
    return order, np.array(losses)


def ranked(scores: Array, most: int) -> tuple[list[int], Array]:
    """Units by a score of each, the least first, and the sum of the scores that are gone."""
    order = np.argsort(scores, kind="stable")[:most]
    total = max(float(scores.sum()), 1e-30)
    return [int(i) for i in order], np.concatenate([[0.0], np.cumsum(scores[order]) / total])
