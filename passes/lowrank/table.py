"""A table of rows (an embedding) as the product of a narrow table and a small matrix.

E [v, d] ~ A [v, r] B [r, d]. Row t is read with probability p_t, and a head that shares the table
multiplies inputs of covariance C by E^T; with weights a and b of the two errors,
    a sum_t p_t |e_t - A_t B|^2 + b tr((E - A B) C (E - A B)^T)
is least, for p the same for all rows in the metric M = a I / v + b C, at the leading eigenvectors
of M^1/2 E^T E M^1/2 (`svd`'s argument with columns for outputs). Without a head M is what the
outputs feel of the rows (`felt`), and p weights these: the principal components of what is read
(Hotelling 1933), uncentred, where M is I.
Rows that are read often are then worth more as they are than the directions that they would take up
(a low-rank matrix and a few whole rows: Xu, Caramanis and Sanghavi 2010, arXiv 1010.4237); such a
row needs no place in the narrow table (adaptive inputs: Baevski and Auli 2018, arXiv 1809.10853).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim.ir import Array

_FLOOR = 1e-10  # of the mean eigenvalue of the metric
_KEPT = (0, 16, 64, 256, 512, 1024, 2048, 4096, 6144, 8192, 12288, 16384, 32768)  # stay whole
_MOST_KEPT = 0.5  # of the rows
_WIDE = 512  # numbers in a row
_MOST_UNSEEN = 0.5  # of what is read, however few samples there are
_NEAR, _EVERY = 256, 64  # rows that tell of one, and as how many of them all others count


@dataclass(frozen=True)
class Split:
    """Every rank at once: rank r takes the first r. `down` [d, n] maps a row to its place in the
    narrow table, `up` [n, d] maps it back; down up is a projection."""

    down: Array
    up: Array


@dataclass(frozen=True)
class Reading:
    """One way to read a table: its split, the rows that stay whole, and the loss by rank."""

    split: Split
    kept: Array
    read: Mapping[int, float]

    def numbers(self, size: tuple[int, int], rank: int) -> int:
        """What stands for a table of this size: of rows that stay whole nothing is in the narrow
        one, and two indices tell where each row is (`table_write`)."""
        v, d = size
        kept = len(self.kept)
        if not kept:
            return rank * (v + d)
        return rank * (v - kept + 1 + d) + (kept + 1) * d + 2 * v


def readings(
    rows: Array, often: Array, judged: Array, ranks: Sequence[int], metric: Array
) -> list[Reading]:
    """Splits of rows that are read with probability `often`, in the metric [d, d], with none and
    more and more of them whole. Losses are those of a table read as `judged` [v], absolute. Cost:
    v d^2, and d^3 for each."""
    felt = halves(metric)
    rests = [weighted(rows, p) for p in (often, judged)]
    order = _order(rows, often, metric, rests[0], felt)
    found: list[Reading] = []
    before = 0
    for count in _counts(*rows.shape):
        more = order[before:count]
        rests = [
            rest - weighted(rows[more], p[more])
            for rest, p in zip(rests, (often, judged), strict=True)
        ]
        before = count
        made = split_in(rests[0], felt)
        losses = _projected(rests[1], made, metric)
        found.append(Reading(made, np.sort(order[:count]), {r: float(losses[r]) for r in ranks}))
    return found


def _counts(size: int, width: int) -> Sequence[int]:
    """How many of `size` rows may stay whole; of wide ones fewer numbers are tried, as each takes
    width^3 of time and two matrices of memory."""
    return [n for n in _KEPT if n <= _MOST_KEPT * size][:: max(1, width // _WIDE)]


def _order(
    rows: Array, often: Array, metric: Array, power: Array, felt: tuple[Array, Array]
) -> Array:
    """First the rows that lose most at half of the ranks, in a split for the rows that are not
    among the fifth of most power: what lies apart from all others, and what is read most."""
    most = np.argsort(-often * powers_in(rows, metric), kind="stable")[: len(rows) // 5]
    found = split_in(power - weighted(rows[most], often[most]), felt)
    rank = rows.shape[1] // 2
    rest = rows - (rows @ found.down[:, :rank]) @ found.up[:rank]
    return np.argsort(-often * powers_in(rest, metric), kind="stable")


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


def halves(metric: Array) -> tuple[Array, Array]:
    """M^1/2 and its inverse, [d, d]; directions that M does not have count a little. Cost: d^3."""
    values, axes = np.linalg.eigh(metric)
    floor = _FLOOR * max(float(values.mean()), 1e-300)
    roots = np.sqrt(np.maximum(values, floor))
    half: Array = (axes * roots) @ np.transpose(axes)
    inverse: Array = (axes / roots) @ np.transpose(axes)
    return half, inverse


def split(power: Array, metric: Array) -> Split:
    """From E^T diag(q) E = `power` [d, d] and M [d, d]. Cost: d^3."""
    return split_in(power, halves(metric))


def split_in(power: Array, felt: tuple[Array, Array]) -> Split:
    """The same from M^1/2 and its inverse."""
    half, inverse = felt
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
    counted in. It goes to each as rows near it were read by one sample, since the words of a
    vocabulary are numbered by how common they are.
    """
    found, counts = shares(reads, size), np.zeros(size, np.int64)
    for rows in reads:
        counts[np.unique(rows)] += 1
    own = sum(float(np.mean(counts[rows] == 1)) for rows in reads if len(rows))
    unseen = counts == 0
    if not unseen.any():
        return found
    mass = min((own + 1) / (len(reads) + 1), _MOST_UNSEEN)
    near = np.where(unseen, _near(counts == 1) / np.maximum(_near(unseen), 1e-30), 0.0)
    mixed: Array = np.where(unseen, mass * near / near.sum(), (1 - mass) * found)
    return mixed


def _near(flags: Array) -> Array:
    """The share of rows with a flag among those near each, and all rows counted in as a few."""
    size = len(flags)
    sums = np.concatenate([[0.0], np.cumsum(flags)])
    first = np.maximum(np.arange(size) - _NEAR // 2, 0)
    last = np.minimum(np.arange(size) + _NEAR // 2, size)
    every = max(float(sums[-1]), 0.5) / size
    part: Array = (sums[last] - sums[first] + _EVERY * every) / (last - first + _EVERY)
    return part
