"""A table of rows (an embedding) as the product of a narrow table and a small matrix.

E [v, d] ~ A [v, r] B [r, d]. Row t is read with probability p_t, and a head that shares the table
multiplies inputs of covariance C by E^T; with weights a and b of the two errors,
    a sum_t p_t |e_t - A_t B|^2 + b tr((E - A B) C (E - A B)^T)
is least, for p the same for all rows in the metric M = a I / v + b C, at the leading eigenvectors
of M^1/2 E^T E M^1/2 (`svd`'s argument with columns for outputs). Without a head M is what the
outputs feel of the rows (`felt`), and p weights these: the principal components of what is read
(Hotelling 1933), uncentred, where M is I.
Rows that are read often are then worth more as they are than the directions that they would take up
(a low-rank matrix and a few whole rows: Xu, Caramanis and Sanghavi 2010, arXiv 1010.4237).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim.ir import Array

_FLOOR = 1e-10  # of the mean eigenvalue of the metric
_KEPT = (16, 64, 256, 512, 1024, 2048, 4096)  # how many rows may stay whole
_FEWEST_CUT = 8  # rows that are cut for one that stays
_MOST_UNSEEN = 0.5  # of what is read, however few samples there are


@dataclass(frozen=True)
class Split:
    """Every rank at once: rank r takes the first r. `down` [d, n] maps a row to its place in the
    narrow table, `up` [n, d] maps it back; down up is a projection."""

    down: Array
    up: Array


@dataclass(frozen=True)
class Reading:
    """A table that is read alone: its split, the rows that stay whole, and the loss by rank."""

    split: Split
    kept: Array
    read: Mapping[int, float]


def split_and_keep(
    rows: Array, often: Array, judged: Array, ranks: Sequence[int], metric: Array
) -> Reading:
    """The split of rows that are read with probability `often`, in the metric [d, d], of which as
    many stay whole as lose least for the same numbers: those of a middle rank, read as `judged`
    [v]. Cost: v d^2."""
    size, each = rows.shape[1], sum(rows.shape)
    order = np.argsort(-often * powers_in(rows, metric), kind="stable")
    numbers = min(ranks, key=lambda r: abs(r - size // 2)) * each
    powers = weighted(rows, often), weighted(rows, judged)
    best: tuple[float, Reading] | None = None
    for count in (0, *(n for n in _KEPT if n <= len(rows) // _FEWEST_CUT)):
        kept = np.sort(order[:count])
        rest, apart = (
            power - weighted(rows[kept], p[kept])
            for power, p in zip(powers, (often, judged), strict=True)
        )
        found = split(rest, metric)
        losses = _projected(apart, found, metric)
        left = (numbers - (count + 1) * size * (count > 0)) / each  # not whole: between two ranks
        loss = float(np.interp(left, range(len(losses)), losses))
        if left >= ranks[0] and (best is None or loss < best[0]):
            best = loss, Reading(found, kept, {r: float(losses[r]) for r in ranks})
    assert best is not None
    return best[1]


def _projected(power: Array, found: Split, metric: Array) -> Array:
    """tr(P (I - D U) M (I - D U)^T) of every rank from 0 on, where M was the metric of the split:
    then D is M^1/2 times orthonormal columns."""
    kept = np.sum((power @ found.down) * found.down, axis=0)
    whole = float(np.sum(power * metric))
    losses: Array = np.maximum(whole - np.append(0.0, np.cumsum(kept)), 0.0)
    return losses


def powers_in(rows: Array, metric: Array) -> Array:
    """e M e^T of every row, [v]."""
    found: Array = np.sum((rows @ metric) * rows, axis=1)
    return found


def weighted(rows: Array, often: Array) -> Array:
    """E^T diag(p) E, [d, d]."""
    some = often > 0
    power: Array = np.transpose(rows[some] * often[some, None]) @ rows[some]
    return power


def split(power: Array, metric: Array) -> Split:
    """From E^T diag(q) E = `power` [d, d] and M [d, d]. Cost: d^3."""
    values, axes = np.linalg.eigh(metric)
    floor = _FLOOR * max(float(values.mean()), 1e-300)
    roots = np.sqrt(np.maximum(values, floor))
    half: Array = (axes * roots) @ np.transpose(axes)
    inverse: Array = (axes / roots) @ np.transpose(axes)
    white: Array = half @ power @ half
    found, vectors = np.linalg.eigh(white)
    order = np.argsort(found)[::-1]
    leading = vectors[:, order]
    return Split(half @ leading, np.transpose(leading) @ inverse)


def read_error(rows: Array, often: Array, found: Split, ranks: Sequence[int]) -> dict[int, float]:
    """sum_t p_t |e_t - e_t'|^2 by rank, with p = `often` [v] over the rows with p > 0."""
    return _errors(weighted(rows.astype(np.float64), often), np.eye(rows.shape[1]), found, ranks)


def head_error(
    gram: Array, covariance: Array, found: Split, ranks: Sequence[int]
) -> dict[int, float]:
    """tr((E - E') C (E - E')^T) by rank, with `gram` = E^T E [d, d]."""
    return _errors(gram, covariance, found, ranks)


def _errors(power: Array, metric: Array, found: Split, ranks: Sequence[int]) -> dict[int, float]:
    """tr(P (I - D U) M (I - D U)^T) by rank, for P = E^T diag(q) E: a cut of rows e (I - D U)."""
    result: dict[int, float] = {}
    for rank in ranks:
        rest = np.eye(len(power)) - found.down[:, :rank] @ found.up[:rank]
        result[rank] = max(float(np.sum((power @ rest) * (rest @ metric))), 0.0)
    return result


def shares(reads: Sequence[Array], size: int) -> Array:
    """How often each of `size` rows is read: every sample counts as one, however long it is."""
    found = np.zeros(size)
    for rows in reads:
        np.add.at(found, rows, 1.0 / max(len(rows), 1) / len(reads))
    return found


def expected(reads: Sequence[Array], size: int) -> Array:
    """The probability that each row is read by a sample that is still to come.

    Good and Turing's estimate (Good 1953), sample by sample: rows that none has read get together
    the share that each sample reads of rows that no other does, one more sample of nothing else
    counted in.
    """
    found, counts = shares(reads, size), np.zeros(size, np.int64)
    for rows in reads:
        counts[np.unique(rows)] += 1
    own = sum(float(np.mean(counts[rows] == 1)) for rows in reads if len(rows))
    unseen = counts == 0
    if not unseen.any():
        return found
    mass = min((own + 1) / (len(reads) + 1), _MOST_UNSEEN)
    mixed: Array = np.where(unseen, mass / np.sum(unseen), (1 - mass) * found)
    return mixed
