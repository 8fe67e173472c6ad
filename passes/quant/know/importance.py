"""How much the layers that read a tensor make of an error in each of its channels.

With an error e of the input, a layer's output is wrong by W e. Rounding makes errors of different
numbers nearly uncorrelated (Widrow and Kollar, Quantization Noise, 2008), so that
E |W e|^2 = sum over channels c of |W_:c|^2 E e_c^2, where W_:c are all weights that c meets.
"""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear
from onnxslim.ir import Array


def channel_axis(layer: Linear) -> int:
    """Where the channels of a layer's input lie."""
    return 1 if layer.kind in ("conv", "deconv") else -1


def importance(layer: Linear) -> Array:
    """|W_:c|^2 of each channel of the layer's input, [C] float64, all groups after each other."""
    weight = ir.array(layer.weight)
    assert weight is not None
    first = layer.kind == "conv"
    per_group = int(weight.shape[first]) if weight.ndim > 2 else layer.in_features
    squares: Array = np.square(layer.matrix(), dtype=np.float64).sum(axis=1)
    return np.asarray(squares.reshape(layer.groups * per_group, -1).sum(axis=1))


def bin_importance(centers: Array, step: float, low: Array, high: Array, of: Array) -> Array:
    """The mean importance `of` the channels [C] that reach each bin, [bins]; 0 where none does.

    `low` and `high` [C] are the extremes of the channels. Which of those channels a number of a
    bin belongs to is not known; towards the ends of the range, where clipping is decided, few are
    left.
    """
    order = np.argsort(low), np.argsort(high)
    sums = [np.concatenate([[0.0], np.cumsum(of[o])]) for o in order]
    started = np.searchsorted(low[order[0]], centers + step / 2, side="right")
    ended = np.searchsorted(high[order[1]], centers - step / 2, side="left")
    count = started - ended
    total: Array = sums[0][started] - sums[1][ended]
    return np.where(count > 0, total / np.maximum(count, 1), 0.0)
