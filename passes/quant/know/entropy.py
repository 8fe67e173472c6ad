"""The range whose integers lose the least information of a tensor's distribution.

For each threshold t the distribution P of |x| up to t, what lies beyond added to its last bin, is
compared with Q, the same put into 128 levels (before what lies beyond is added) and spread evenly
over the bins of each level that hold anything; t minimizes the divergence of Kullback and Leibler
D(P || Q). Numbers of one sign have 256 levels; the first bin, which holds what a Relu cuts off,
counts as much as the second. Sources: Migacz, 8-bit Inference with TensorRT, GTC 2017; the last
sentence: NVIDIA's pytorch-quantization, calib/histogram.py.
"""

from __future__ import annotations

import numpy as np

from onnxslim.ir import Array

LEVELS = 128
"""Integers of one sign."""


def entropy_threshold(counts: Array, levels: int = LEVELS) -> int:
    """How many of the bins of |x|, [bins] from 0, the best range holds: at least `levels`, or all.

    Cost: `levels` operations for each bin, by sums from the start of the histogram.
    """
    bins = len(counts)
    if bins <= levels:
        return bins
    known = counts.astype(np.float64)
    known[0] = known[1]
    ends = np.arange(levels, bins + 1)
    return int(ends[divergences(known, ends, levels).argmin()])


def divergences(counts: Array, ends: Array, levels: int) -> Array:
    """D(P || Q) for each number of bins kept [n], in nats; infinite where Q lacks what P holds."""
    total = counts.sum()
    below, filled = _sums(counts), _sums(counts > 0)
    last = counts[ends - 1]
    beyond = total - below[ends]
    edges = np.arange(levels) * (ends // levels)[:, None]
    edges = np.concatenate([edges, ends[:, None]], axis=1)
    level = np.diff(below[edges], axis=1)  # of Q, [n, levels]
    bins = np.diff(filled[edges], axis=1)
    bins[:, -1] += (last == 0) & (beyond > 0)
    inside = level.copy()  # of P
    inside[:, -1] += beyond
    own = _sums(_entropy_terms(counts))[ends - 1] + _entropy_terms(last + beyond)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(inside > 0, inside * np.log(level / bins), 0.0).sum(axis=1)
        found = (own - spread) / total - np.log(total) + np.log(below[ends])
    return np.asarray(np.where(np.isnan(found), np.inf, found))


def _sums(x: Array) -> Array:
    """Of the first k numbers, for k from 0 on."""
    return np.concatenate([[0.0], np.cumsum(x, dtype=np.float64)])


def _entropy_terms(x: Array) -> Array:
    return np.asarray(x * np.log(np.where(x > 0, x, 1.0)))


def magnitudes(counts: Array, low: float, step: float) -> Array:
    """The histogram of |x| in bins of `step` from 0, of one whose first bin starts at `low`."""
    centers = low + step * (np.arange(len(counts)) + 0.5)
    return np.bincount(np.floor(np.abs(centers) / step).astype(np.int64), weights=counts)
