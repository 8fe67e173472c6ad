"""Cross-layer equalization: channels between two layers scaled so that both weights round better.

layer A -> Relu | pools | nothing -> layer B: with s > 0 per channel, A's outputs divided by s and
B's inputs multiplied by it give the same outputs, because what lies between is positively
homogeneous, f(x / s) = f(x) / s, and works channel by channel. The scales that make the ranges of
both equal are s = sqrt(r_A / r_B). Source: Nagel et al., Data-Free Quantization (2019), equation
11. A depthwise layer is a B for the one before it and an A for the one behind it; all pairs are
gone through until none gains.

A Clip at h would have to end at h / s per channel, which no runtime fuses. So channels that reach h
keep s = 1, and others s >= r / h with the highest number r that samples show: then the one bound
cuts where it did before. That is equal on such samples, not for all inputs, so it is
done where samples tell, and `fitted` says whether it holds on others.

It matters where one scale is for a whole weight; scales per channel do the same for A anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear
from onnxslim.ir import Array, Editor
from onnxslim.passes.quant.prepare.neighbours import Pair, Wanted, every_pair, pairs
from onnxslim.passes.quant.prepare.seen import Seen, highest
from onnxslim.passes.quant.qparams import TINY

SWEEPS = 10
"""Over all pairs, at most."""

WORTH = 0.99
"""What is left of the predicted error of a pair, at most, for it to be scaled."""


def equalize(
    editor: Editor,
    bits: int,
    wanted: Wanted = every_pair,
    seen: Seen | None = None,
    slack: float = 0.0,
) -> int:
    """Scale the pairs of the main graph in place; returns how many layers were changed.

    Only where the error that both weights cause, rounded to `bits` with one scale each, falls.
    `seen`: of channels, beyond which other samples may go by `slack` (`seen.highest`); with a Clip
    between, only pairs whose channels are there are scaled.
    """
    pairs_here = filter(wanted, pairs(editor.model, seen is not None))
    reached = [(pair, reach(pair, seen or {}, slack)) for pair in pairs_here]
    found = [_Scaling(pair, known) for pair, known in reached if known is not None]
    weights = {layer.node: layer.matrix() for x in found for layer in x.layers}
    biases = {x.pair.first.node: x.pair.first.bias_vector() for x in found}
    changed: dict[ir.Node, Linear] = {}
    for _ in range(SWEEPS):
        if not sum(_balance(scaling, weights, biases, changed, bits) for scaling in found):
            break
    for node, layer in changed.items():
        _write(editor, layer, weights[node], biases.get(node))
    return len(changed)


@dataclass
class _Scaling:
    """A pair, and how near its channels come to the bound between, [C]; 0 without one."""

    pair: Pair
    reach: Array

    @property
    def layers(self) -> tuple[Linear, Linear]:
        return self.pair.first, self.pair.second


def reach(pair: Pair, seen: Seen, slack: float) -> Array | None:
    """The highest number of each channel over the bound of a pair, [C]: 1 and more where the bound
    may cut, 0 without one. None where the channels are not known; what was never above 0 counts
    as 1, as nothing is known of it."""
    channels, bound = pair.first.out_features, pair.bound
    if bound == np.inf:
        return np.zeros(channels)
    stats = seen.get(str(pair.first.node.outputs[0].name))
    if stats is None or len(stats.max) != channels:
        return None
    return np.where(stats.max > 0, highest(stats, slack) / bound, 1.0)


def within(s: Array, reach: Array) -> Array:
    """Divisors [C] nearest to `s`, as far as a common factor does not count, with which a bound
    cuts where it did: 1 for channels that it cuts, not below their `reach` for others."""
    cut = reach >= 1
    if cut.any():
        return np.where(cut, 1.0, np.maximum(s / np.exp(np.log(s[cut]).mean()), reach))
    return np.asarray(s * max(1.0, float((reach / s).max())))


def balancing(first: Array, second: Array) -> Array:
    """The divisors [C] of channels whose weights reach `first` [C] before and `second` [C] behind;
    1 where one of them has no weight at all."""
    both = (first > 0) & (second > 0)
    ratio = np.where(both, first, 1.0) / np.where(both, second, 1.0)
    return np.sqrt(ratio)


def rounding_error(first: Array, second: Array, bits: int) -> float:
    """Noise over signal behind two layers whose weights are rounded with one scale each.

    `first` [C, n] makes channels, `second` [C, m] reads them. For inputs that are independent and
    alike, channel c adds |dA_c|^2 |B_c|^2 + |A_c|^2 |dB_c|^2 to the noise and |A_c|^2 |B_c|^2 to
    the signal, which no scaling of channels changes.
    """
    a, b = (_powers(weight, bits) for weight in (first, second))
    signal = float((a[0] * b[0]).sum())
    return float((a[1] * b[0] + a[0] * b[1]).sum()) / signal if signal else 0.0


def _powers(weight: Array, bits: int) -> tuple[Array, Array]:
    """|W_c|^2 and |dW_c|^2, each [C]."""
    scale = max(float(np.abs(weight).max()) / (2 ** (bits - 1) - 1), TINY)
    change: Array = weight - np.rint(weight / scale) * scale
    return (weight.astype(np.float64) ** 2).sum(axis=1), (change**2).sum(axis=1)


def _balance(
    scaling: _Scaling,
    weights: dict[ir.Node, Array],
    biases: dict[ir.Node, Array | None],
    changed: dict[ir.Node, Linear],
    bits: int,
) -> bool:
    """Scale one pair, if that pays; whether it did."""
    pair = scaling.pair
    a, b = weights[pair.first.node], weights[pair.second.node]
    rows, columns = a.reshape(-1, a.shape[2]), pair.columns(b)
    s = balancing(np.abs(rows).max(axis=1), np.abs(columns).max(axis=1))
    s = within(s, scaling.reach)
    before = rounding_error(rows, columns, bits)
    if rounding_error(rows / s[:, None], columns * s[:, None], bits) >= WORTH * before:
        return False
    new_a: Array = a / s.reshape(a.shape[0], -1, 1)
    new_b = pair.scaled(b, s)
    weights[pair.first.node], weights[pair.second.node] = new_a, new_b
    bias = biases[pair.first.node]
    biases[pair.first.node] = None if bias is None else bias / s
    changed[pair.first.node], changed[pair.second.node] = pair.first, pair.second
    scaling.reach = scaling.reach / s
    return True


def _write(editor: Editor, layer: Linear, matrix: Array, bias: Array | None) -> None:
    own = editor.unshare(layer.node, layer.weight_index)
    editor.replace_initializer(own, layer.from_matrix(matrix))
    if layer.bias is not None and bias is not None and layer.bias_index is not None:
        own = editor.unshare(layer.node, layer.bias_index)
        editor.replace_initializer(own, layer.from_bias(bias))
