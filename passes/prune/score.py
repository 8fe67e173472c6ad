"""What a layer loses when inputs go and the others are fitted to make up for them.

With C the covariance of the inputs, H = C^-1 and P the columns removed, the least mean squared
error of the output W x over all weights of the columns that stay, and over the bias, is
tr(W_P (H_PP)^-1 W_P^T) (Frantar, Singh and Alistarh 2022, Optimal Brain Compression, eq. 3-5, for
sets of columns). Columns go greedily; H and W are downdated after each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.prune.evidence import power

_BATCHES = 16  # steps of a greedy run; the units of one step go together


@dataclass
class Consumer:
    """A layer that reads units: weight [out, d], covariance [d, d] that can be inverted, its
    columns by unit, and the covariance [d, d] on other samples that losses are counted on."""

    weight: Array
    covariance: Array
    blocks: list[Array]
    judge: Array | None = None

    def __post_init__(self) -> None:
        self.original: Array = self.weight.astype(np.float64)
        self.weight = self.original
        counted = self.covariance if self.judge is None else self.judge
        self.power = max(power(self.original, counted), 1e-30)
        self.inverse: Array = np.linalg.inv(self.covariance)

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
        columns: Array = np.transpose(self.weight[:, blocks], (1, 2, 0))  # [n, b, out]
        gram: Array = np.matmul(columns, np.swapaxes(columns, 1, 2))
        part: Array = self.inverse[blocks[:, :, None], blocks[:, None, :]]
        solved: Array = np.linalg.solve(part, gram)
        return np.asarray(np.trace(solved, axis1=1, axis2=2) / self.power)

    def remove(self, units: Sequence[int]) -> float:
        """Take units out, fit the rest, and say what that adds to the loss."""
        columns = np.concatenate([self.blocks[unit] for unit in units])
        if columns.size == 0:
            return 0.0
        part: Array = self.inverse[np.ix_(columns, columns)]
        rows: Array = self.inverse[columns]
        lost: Array = self.weight[:, columns]
        own: Array = np.transpose(lost)
        loss = float(np.sum(own * np.linalg.solve(part, own))) / self.power
        before = self._judged()
        shift: Array = np.linalg.solve(part, rows)
        self.weight = self.weight - lost @ shift
        self.inverse = self.inverse - np.transpose(rows) @ shift
        self.weight[:, columns] = 0
        # what is gone has no part in later steps
        self.inverse[columns] = 0
        self.inverse[:, columns] = 0
        self.inverse[columns, columns] = 1
        return loss if self.judge is None else self._judged() - before

    def _judged(self) -> float:
        if self.judge is None:
            return 0.0
        return power(self.original - self.weight, self.judge) / self.power


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
