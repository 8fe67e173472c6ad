"""Pairs of layers with nothing between them but what is positively homogeneous per channel, or
would be if it were not for an upper bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear
from onnxslim.ir import Array, Model, Node, Value
from onnxslim.passes.quant.clipping import limits_of

ELEMENTWISE = frozenset({"Identity", "LeakyRelu", "Relu"})
"""Operators with f(x / s) = f(x) / s for s > 0 per channel, wherever the channels lie."""

OF_IMAGES = frozenset({"AveragePool", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
"""The same for channels on axis 1."""


@dataclass(frozen=True)
class Pair:
    """The only reader of a layer's output, after what lies `between`, is the other layer. `repeat`:
    inputs of the second per channel of the first: taps of the window, places of a flattened image.
    """

    first: Linear
    second: Linear
    repeat: int
    between: tuple[Node, ...] = ()

    @property
    def bound(self) -> float:
        """The highest number that what lies between leaves through."""
        limits = (limits_of(node) for node in self.between if ir.op(node) == "Clip")
        return min((limit[1] for limit in limits if limit), default=inf)

    @property
    def depthwise(self) -> bool:
        """Whether the second layer has a group for each channel."""
        return self.second.groups > 1

    def columns(self, weight: Array) -> Array:
        """What of the second's weight [G, out/G, d] reads each channel, [C, n]."""
        if self.depthwise:
            return np.asarray(weight.reshape(len(weight), -1))
        split = weight.reshape(weight.shape[1], -1, self.repeat)
        return np.asarray(np.swapaxes(split, 0, 1).reshape(split.shape[1], -1))

    def scaled(self, weight: Array, s: Array) -> Array:
        """The second's weight with its inputs multiplied by s [C]."""
        if self.depthwise:
            return np.multiply(weight, s[:, None, None])
        factors: Array = np.repeat(s, self.repeat)
        return np.asarray(weight * factors)


Wanted = Callable[[Pair], bool]


def every_pair(pair: Pair) -> bool:
    """All are wanted."""
    return True


def pairs(model: Model, bounded: bool = False) -> list[Pair]:
    """All pairs of the main graph, in its order; with `bounded` also those with a Clip between that
    ends at 0 or nowhere below."""
    return list(_pairs(model, bounded))


def _pairs(model: Model, bounded: bool) -> Iterator[Pair]:
    for node in model.graph:
        first = linear(node)
        if isinstance(first, str):
            continue
        second, between = _behind(first, bounded)
        pair = None if second is None else _pair(first, second, between)
        if pair is not None:
            yield pair


def _behind(first: Linear, bounded: bool) -> tuple[Linear | None, tuple[Node, ...]]:
    """The layer that alone reads a layer's output, and what lies between."""
    value, between = first.node.outputs[0], list[Node]()
    node = only_reader(value)
    while node is not None and _passes(node, first.kind == "conv", bounded):
        between.append(node)
        value = node.outputs[0]
        node = only_reader(value)
    found = None if node is None else linear(node)
    fits = isinstance(found, Linear) and found.input is value and found.tap.axis == -1
    return found if fits and isinstance(found, Linear) else None, tuple(between)


def _passes(node: Node, image: bool, bounded: bool) -> bool:
    if ir.op(node) == "Clip":
        limits = limits_of(node) if bounded else None
        return limits is not None and limits[0] in (0, -inf)
    if ir.op(node) == "Flatten" and ir.attribute(node, "axis", 1) != 1:
        return False
    return ir.op(node) in ELEMENTWISE or (image and ir.op(node) in OF_IMAGES)


def only_reader(value: Value) -> Node | None:
    """The node that alone reads a value, if that is in the same graph."""
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = uses[0].node
    return node if node.graph is ir.graph_of(value) else None


def _pair(first: Linear, second: Linear, between: tuple[Node, ...]) -> Pair | None:
    """None where channels do not meet, or a bias is computed."""
    channels = first.out_features
    if any(layer.bias_vector() is None for layer in (first, second)):
        return None
    if second.groups > 1:
        depthwise = second.groups == channels and second.out_features % channels == 0
        return Pair(first, second, second.in_features, between) if depthwise else None
    if second.in_features % channels:
        return None
    # a conv reads channels slowest, as a flattened image has them; others must meet one to one
    repeat = second.in_features // channels
    if second.kind != "conv" and repeat > 1 and first.kind != "conv":
        return None
    return Pair(first, second, repeat, between)
