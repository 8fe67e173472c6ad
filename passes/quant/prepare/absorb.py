"""Bias absorption: what all numbers of a channel have in common goes into the bias behind it.

layer A -> Relu | Clip | pools | nothing -> layer B: where channel c is never below k > 0,
B f(a) = B f(a - k) + B k, so k leaves A's bias and B k enters that of B. Where nothing but pools
lies between, k may be any number, and half-way between the extremes is best. The tensor between
then spans less, and its integers are finer. Source: Nagel et al., Data-Free Quantization (2019),
section 4.1.3, whose k is the mean less three deviations; here it is what was seen, less some.
"""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear
from onnxslim.ir import Array, Editor, Node
from onnxslim.passes.quant.prepare.neighbours import Pair, Wanted, every_pair, pairs
from onnxslim.passes.quant.prepare.seen import Seen, highest, lowest

WORTH = 0.97
"""What is left of the range of the tensor between, at most, for channels to be moved by any
number."""

LINEAR = frozenset({"AveragePool", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity",
                    "MaxPool"})  # fmt: skip
"""Operators with f(x - k) = f(x) - k for any k per channel, if no padding counts."""


def absorb(editor: Editor, seen: Seen, slack: float | None, wanted: Wanted = every_pair) -> int:
    """Move constants of channels between the layers of the main graph in place, as far as `seen`
    knows the channels; returns how many channels were moved. See `constants`."""
    layers: dict[Node, Linear] = {}
    biases: dict[Node, Array] = {}
    count = 0
    for pair in pairs(editor.model, bounded=True):
        taken = constants(pair, seen, slack) if wanted(pair) else None
        if taken is None:
            continue
        for layer, change in ((pair.first, -taken), (pair.second, _behind(pair, taken))):
            bias = biases.get(layer.node, layer.bias_vector())
            assert bias is not None
            layers[layer.node], biases[layer.node] = layer, np.add(bias, change)
        count += int(np.count_nonzero(taken))
    for node, layer in layers.items():
        write_bias(editor, layer, biases[node])
    return count


def _behind(pair: Pair, taken: Array) -> Array:
    """What constants that are taken off the channels [C] are in the outputs of B, [out]."""
    weight: Array = pair.scaled(pair.second.matrix().astype(np.float64), taken)
    added: Array = np.sum(weight, axis=-1).reshape(-1)
    return added


def constants(pair: Pair, seen: Seen, slack: float | None) -> Array | None:
    """What can be taken off each channel, [C]; None where nothing can.

    `slack`: by how much other samples may go beyond what was seen (`seen.lowest`); with None only
    what is equal for all inputs. Not where a window of B or of an average takes padding, which is 0
    and would have to be -k.
    """
    stats = seen.get(str(pair.first.node.outputs[0].name))
    windows = (pair.second.node, *pair.between)
    biased = all(layer.bias_index is not None for layer in (pair.first, pair.second))
    if stats is None or not biased or any(map(_pads, windows)):
        return None
    if all(ir.op(node) in LINEAR for node in pair.between):
        return middle(stats.min, stats.max)
    if slack is None:
        return None
    low, high = lowest(stats, slack), highest(stats, slack)
    inside = (low > 0) & (high < pair.bound)
    return np.where(inside, low, 0.0) if inside.any() else None


def middle(low: Array, high: Array) -> Array | None:
    """Half-way between the extremes of channels [C], if the tensor then spans less."""
    before = max(float(high.max()), 0.0) - min(float(low.min()), 0.0)
    after = float((high - low).max())
    return (low + high) / 2 if after < WORTH * before else None


def _pads(node: Node) -> bool:
    """Whether numbers are made up around what a node reads, and count."""
    if ir.op(node) not in ("AveragePool", "Conv"):
        return False
    if ir.op(node) == "AveragePool" and not ir.attribute(node, "count_include_pad", 0):
        return False
    automatic = ir.attribute(node, "auto_pad", "NOTSET")
    given = any(ir.attribute(node, "pads", ()) or ())
    return given or automatic not in ("NOTSET", "VALID", b"NOTSET", b"VALID")


def write_bias(editor: Editor, layer: Linear, vector: Array) -> None:
    """Another bias [out] for a layer that takes one, whether it has one or not."""
    content, node = layer.from_bias(vector), layer.node
    if layer.bias is not None:
        editor.replace_initializer(editor.unshare(node, 2), content)
        return
    made = editor.initializer(editor.scope_of(node), f"{layer.weight.name}.bias", content)
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    editor.rewire([(node, 2)], made)
