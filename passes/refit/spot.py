"""Where a layer and the constant added to it are, and what its result is added to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear
from onnxslim.ir import Array, Model, Node, Value


@dataclass(frozen=True)
class Spot:
    """A layer and the constant that is added to its result: of the node itself, or of an Add
    after it; none has no holder. `output` is the name of the sum, in this model and in the
    original."""

    layer: Linear
    holder: Node | None
    index: int
    output: str

    @property
    def value(self) -> Value:
        """The result with the constant."""
        return (self.holder or self.layer.node).outputs[0]

    def offset(self) -> Array | None:
        """The constant added, [out], where it is one number per output."""
        if self.holder is None:
            return np.zeros(self.layer.out_features)
        if self.holder is self.layer.node:
            return self.layer.bias_vector()
        added = ir.array(self.holder.inputs[self.index])
        if added is None or added.size != self.layer.out_features:
            return None
        return added.astype(np.float64).ravel()

    def content(self, offset: Array) -> Array | None:
        """An offset in the shape and dtype that the holder has it in."""
        if self.holder is None:
            return None
        if self.holder is self.layer.node:
            return self.layer.from_bias(offset)
        added = ir.array(self.holder.inputs[self.index])
        return None if added is None else offset.reshape(added.shape).astype(added.dtype)


def spots_of(model: Model, names: Sequence[str]) -> list[Spot]:
    """The layers that make these values of the main graph and can be fitted."""
    makers = {str(v.name): node for node in model.graph for v in node.outputs}
    found = [spot_of(makers[name]) for name in names if name in makers]
    return [spot for spot in found if spot is not None]


def spot_of(node: Node) -> Spot | None:
    """Where a second factor and its offset are, from the node that makes the layer's output."""
    layer = linear(node)
    if isinstance(layer, Linear):
        if layer.bias is not None:
            return _known(Spot(layer, node, 2, str(node.outputs[0].name)))
        readers = list(node.outputs[0].uses())
        node = readers[0][0] if len(readers) == 1 else node
    if ir.op(node) != "Add":
        return None
    for index in (0, 1):
        maker = None if (value := node.inputs[index]) is None else value.producer()
        before = None if maker is None else linear(maker)
        if isinstance(before, Linear):
            return _known(Spot(before, node, 1 - index, str(node.outputs[0].name)))
    return None


def _known(spot: Spot) -> Spot | None:
    return None if spot.offset() is None else spot


def skips(model: Model, names: Sequence[str]) -> list[str]:
    """The names of what the layers with these outputs are added to."""
    order = {node: at for at, node in enumerate(model.graph)}
    found = (skip(spot, order) for spot in spots_of(model, names))
    return list(dict.fromkeys(name for name in found if name))


def skip(spot: Spot, order: Mapping[Node, int]) -> str:
    """The name of what a layer's result is added to, if it is there before the layer runs; `order`
    are the places of the nodes of the main graph."""
    readers = [use.node for use in spot.value.uses()]
    if len(readers) != 1 or ir.op(readers[0]) != "Add" or spot.value.is_graph_output():
        return ""
    other = next((value for value in readers[0].inputs if value is not spot.value), None)
    maker = None if other is None else other.producer()
    if other is None or maker is None or ir.constant(other) is not None:
        return ""
    return str(other.name) if order.get(maker, len(order)) < order[spot.layer.node] else ""
