"""What a layer loses when inputs go and the others are fitted to make up for them.

With C the covariance of the inputs, H = C^-1 and P the columns removed, the least mean squared
error of the output W x over all weights of the columns that stay, and over the bias, is
tr(W_P (H_PP)^-1 W_P^T) (Frantar, Singh and Alistarh 2022, Optimal Brain Compression, eq. 3-5, for
sets of columns). Columns go greedily; H and W are downdated after each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import InitVar, dataclass
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import get_lapack_funcs

from onnxslim.analyses.builder import mirror
from onnxslim.ir import Array
from onnxslim.passes.prune.evidence import power

_BATCHES = 16  # steps of a greedy run; the units of one step go together
_COUNTED = 4  # steps after which losses are counted again
_MORE = (0.0, 1e-12, 1e-9, 1e-6, 1e-3)  # of the largest variance, until there is a factor


@dataclass
class _Kind:
    """Units of equally many columns b: their numbers, columns [n, b] and parts of H [n, b, b]."""

    units: Array
    places: Array
    parts: Array

    def lessen(self, rows: Array, gone: Sequence[int]) -> None:
        """H - R^T R without the units that are gone."""
        stays = ~np.isin(self.units, gone)
        self.units, self.places = self.units[stays], self.places[stays]
        some = rows[:, self.places]
        self.parts = self.parts[stays] - np.matmul(
            np.transpose(some, (1, 2, 0)), np.transpose(some, (1, 0, 2))
        )


@dataclass
class Consumer:
    """A layer that reads units: weight [out, d], covariance [d, d] that can be inverted, its
    columns by unit, and the covariance [d, d] on other samples that losses are counted on.

    All is computed in the type of the covariance. Columns of `weight` that are gone are zero. The
    inverse is that of the start, and what is taken from it are rows R: H is `inverse` - R^T R.
    """

    weight: Array
    covariance: InitVar[Array]
    blocks: list[Array]
    judge: Array | None = None

    def __post_init__(self, covariance: Array) -> None:
        self.original: Array = self.weight.astype(covariance.dtype)
        self.weight = self.original.copy()
        if self.judge is not None:  # sums of errors: float32 is exact enough, and twice as fast
            self.judge = self.judge.astype(np.float32, copy=False)
        counted = covariance if self.judge is None else self.judge
        self.power = max(power(self.original, counted), 1e-30)
        self.inverse: Array = inverse(covariance)
        self.rows: list[Array] = []
        self.gone = 0.0
        self.kinds: list[_Kind] = []
        sizes = np.array([block.size for block in self.blocks])
        for size in np.unique(sizes[sizes > 0]):
            units = np.flatnonzero(sizes == size)
            places = np.stack([self.blocks[unit] for unit in units])
            parts = self.inverse[places[:, :, None], places[:, None, :]]
            self.kinds.append(_Kind(units, places, parts))

    def losses(self) -> Array:
        """The loss of each unit alone, relative to the power of the output; of those gone 0."""
        found = np.zeros(len(self.blocks))
        for kind in self.kinds:
            columns: Array = np.transpose(self.weight[:, kind.places], (1, 2, 0))  # [n, b, out]
            gram: Array = np.matmul(columns, np.swapaxes(columns, 1, 2))
            solved: Array = np.linalg.solve(kind.parts, gram)
            found[kind.units] = np.trace(solved, axis1=1, axis2=2) / self.power
        return found

    def remove(self, units: Sequence[int]) -> None:
        """Take units out and fit the rest."""
        columns = np.concatenate([self.blocks[unit] for unit in units])
        if columns.size == 0:
            return
        part, rest = self.inverse[np.ix_(columns, columns)], self.inverse[columns]
        for earlier in self.rows:
            own = np.transpose(earlier[:, columns])
            part -= own @ earlier[:, columns]
            rest -= own @ earlier
        root = _root(part)
        # with H_PP = L L^T: R = L^-1 H_P and V = L^-1 W_P^T
        rows: Array = solve_triangular(root, rest, lower=True, overwrite_b=True)
        lost: Array = solve_triangular(root, np.transpose(self.weight[:, columns]), lower=True)
        self.weight -= np.transpose(lost) @ rows
        self.weight[:, columns] = 0
        self.rows.append(rows)
        for kind in self.kinds:
            kind.lessen(rows, units)
        self.gone += float(np.sum(np.square(lost)))

    def believed(self) -> float:
        """The loss of all that is gone on the samples fitted to, relative to the power."""
        return self.gone / self.power

    def loss(self) -> float:
        """That on the samples it is counted on."""
        if self.judge is None:
            return self.believed()
        return power(self.original - self.weight, self.judge) / self.power


def _root(part: Array) -> Array:
    """The lower Cholesky factor, of a little more than the matrix where rounding has left it
    without one."""
    level = float(np.abs(np.diagonal(part)).max())
    one = np.eye(len(part), dtype=part.dtype)
    for more in _MORE:
        with suppress(np.linalg.LinAlgError):
            return np.asarray(np.linalg.cholesky(part + more * level * one))
    return np.asarray(np.sqrt(level) * one)


def inverse(covariance: Array) -> Array:
    """Of a symmetric positive definite matrix; half the work of a general one."""
    potrf: Any = get_lapack_funcs("potrf", (covariance,))
    potri: Any = get_lapack_funcs("potri", (covariance,))
    root, failed = potrf(np.transpose(covariance), lower=1, clean=0)
    found, failed = potri(root, lower=1, overwrite_c=1) if not failed else (root, failed)
    if failed:  # so badly conditioned that rounding leaves a negative pivot
        return np.asarray(np.linalg.inv(covariance))
    upper: Array = np.transpose(found)
    mirror(upper[None])
    return upper


def greedy(consumers: Sequence[Consumer], count: int, most: int) -> tuple[list[int], Array]:
    """Units in the order in which they go, `most` of them, and the loss after each of them.

    The loss is summed over consumers. It is counted after every few steps; what it is of the loss
    on the samples fitted to, which every step gives, is a line in between.
    """
    alive, order = list(range(count)), list[int]()
    ends, believed = [0], [0.0]
    counted, shares = list[int](), list[float]()
    step = max(1, most // _BATCHES)
    while len(order) < most:
        scores = sum((consumer.losses()[alive] for consumer in consumers), np.zeros(len(alive)))
        take = min(step, most - len(order))
        chosen = [alive[int(i)] for i in np.argsort(scores, kind="stable")[:take]]
        for consumer in consumers:
            consumer.remove(chosen)
        order += chosen
        ends.append(len(order))
        believed.append(sum(consumer.believed() for consumer in consumers))
        if len(order) == most or len(ends) % _COUNTED == 0:
            counted.append(len(order))
            judged = sum(consumer.loss() for consumer in consumers)
            shares.append(judged / believed[-1] if believed[-1] > 0 else 1.0)
        gone = set(chosen)
        alive = [unit for unit in alive if unit not in gone]
    at = np.arange(len(order) + 1)
    losses = np.interp(at, ends, believed)
    if counted:
        losses *= np.interp(at, counted, shares)
    return order, np.maximum.accumulate(losses)


def ranked(scores: Array, most: int) -> tuple[list[int], Array]:
    """Units by a score of each, the least first, and the sum of the scores that are gone."""
    order = np.argsort(scores, kind="stable")[:most]
    total = max(float(scores.sum()), 1e-30)
    return [int(i) for i in order], np.concatenate([[0.0], np.cumsum(scores[order]) / total])
