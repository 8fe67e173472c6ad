"""A product of two factors held in fewer numbers: some outputs are what the first factor gives.

H V with H [out, r] is also (H H_P^-1) (H_P V) for any r rows P of H that are independent. The rows
P of the new second factor are those of the identity, which need not be stored or multiplied:
r (d + out - r) numbers instead of r (d + out), and fewer than the layer's own d out for every r
below both (pivoting factorization, Zhao et al. 2025, arXiv 2501.19090). P are the rows that
Gaussian elimination with partial pivoting takes (Golub and Van Loan 2013, section 3.4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim.ir import Array

_LEAST = 32  # ranks below save too little for two more nodes
_SAVES = 0.1  # of the numbers of another pair of the same rank,
_LEAVES = 0.05  # and of the layer's own


def ranks(size: int, out: int, step: int) -> range:
    """The multiples of `step` at which a pivoted pair is worth having: it saves r^2 numbers of
    those of another pair, and (d - r) (out - r) of the layer's own."""
    least = -(-max(int(_SAVES * (size + out)), _LEAST) // step) * step
    found = range(least, min(size, out), step)
    saving = [r for r in found if (size - r) * (out - r) >= _LEAVES * size * out]
    return found[: len(saving)]  # which falls with r


def pivots(second: Array) -> Array:
    """r independent rows of H [out, r], in increasing order, [r]. Cost: out r^2."""
    from scipy.linalg.lapack import dgetrf

    count = second.shape[1]
    _, swaps, _ = dgetrf(second)
    order = np.arange(len(second))
    for i, j in enumerate(swaps[:count]):
        order[[i, j]] = order[[j, i]]
    found: Array = np.sort(order[:count])
    return found


def pivoted(second: Array, first: Array, rows: Array) -> tuple[Array, Array]:
    """H' [out, r] and V' [r, m] of the same product, where H'[rows] is the identity."""
    chosen = second[rows]
    moved: Array = np.transpose(np.linalg.solve(np.transpose(chosen), np.transpose(second)))
    moved[rows] = np.eye(len(rows))
    return moved, chosen @ first


def direct(rows: Array, start: int, count: int) -> Array:
    """For the outputs `start` to `start + count`: which of `rows` each is, or -1. [count]"""
    found: Array = np.full(count, -1)
    own = (rows >= start) & (rows < start + count)
    found[rows[own] - start] = np.flatnonzero(own)
    return found


def shared(
    first: Array, seconds: Sequence[Array], scales: Sequence[float]
) -> tuple[Array, list[Array], list[Array | None]]:
    """A first factor that gives outputs of several layers, their second factors, and which outputs
    (`direct`; None for a layer of which it gives none). The products H_i V stay.

    V [r, d], H_i [out_i, r]; `scales` make the outputs of the layers comparable where rows are
    chosen.
    """
    sizes = [len(second) for second in seconds]
    starts = np.cumsum([0, *sizes[:-1]])
    scaled = [scale * second for second, scale in zip(seconds, scales, strict=True)]
    rows = pivots(np.concatenate(scaled))
    moved, given = pivoted(np.concatenate(list(seconds)), first, rows)
    known = [direct(rows, start, n) for start, n in zip(starts, sizes, strict=True)]
    return (
        given,
        np.split(moved, starts[1:]),
        [outputs if (outputs >= 0).any() else None for outputs in known],
    )
