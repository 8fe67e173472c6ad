"""Layers that read the same rows, cut together: one first factor serves them all.

y_i = W_i x with weights g_i of their errors is one layer S W x of the stacked matrices, scaled by
S = diag(g_i^1/2); its whitened SVD U U^T S W (`svd`) gives the common V = U^T S W and for each
layer H_i = S_i^-1 U_i, which minimise sum_i g_i E|y_i - H_i V x|^2 over all that share a V of r
rows (Basis Sharing, Wang et al. 2024, arXiv 2410.03765, does so across layers of a depth).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.lowrank.svd import Basis, Problem, balanced


def stacked(matrices: Sequence[Array], weights: Sequence[float], covariance: Array) -> Problem:
    """One layer of all: matrices [out_i, d], covariance [d, d]."""
    size = covariance.shape[-1]
    scaled = [np.sqrt(g) * w for w, g in zip(matrices, weights, strict=True)]
    whole: Array = np.concatenate(scaled).reshape(-1, 1, size)
    return Problem(whole, covariance.reshape(1, size, 1, size))


def shared_factors(
    task: Problem, found: Basis, rank: int, sizes: Sequence[int], weights: Sequence[float]
) -> tuple[Array, list[Array]]:
    """V [r, d] and H_i [out_i, r], balanced in scale."""
    second, first = balanced(task, found.first[:rank], found.second[:, :, :rank])
    ends = np.cumsum(sizes)[:-1]
    parts = np.split(second[:, 0, :], ends)
    return first, [part / np.sqrt(g) for part, g in zip(parts, weights, strict=True)]


def member_losses(
    task: Problem, found: Basis, covariance: Array, sizes: Sequence[int], ranks: Sequence[int]
) -> dict[int, Array]:
    """g_i E|y_i - H_i V x|^2 of each layer by rank, [layers], for inputs of this covariance.

    `covariance` [d, d] may be that of other rows than the factors are fitted to.
    """
    flat = task.weight[:, 0, :]
    left = found.second[:, 0, :]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    seen = flat @ covariance
    power = np.add.reduceat(np.sum(seen * flat, axis=1), starts)
    turned: Array = found.first @ np.transpose(seen)  # U^T S W C W^T S, [n, out]
    inner: Array = turned @ left
    before: Array = left @ np.triu(inner, 1)  # what a direction shares with those before it
    more = left * (2 * before + np.diagonal(inner) * left - 2 * np.transpose(turned))
    rest = power[:, None] + np.cumsum(np.add.reduceat(more, starts, axis=0), axis=1)
    return {rank: np.maximum(rest[:, rank - 1], 0.0) for rank in ranks}
