"""Channel shift: what the channels of a tensor have in common goes behind the layers that read it.

W x + b = W (x - z) + (b + W z): z leaves the constant that is added where x is made (a
normalization, a bias, the values of attention), and W z enters the bias of each layer that reads
x. Where x is added to something, z enters the bias in that. With z = (max + min) / 2 per channel
the tensor spans no more than its widest channel, and its integers are finer. The outputs are the
same for all inputs, to rounding. Source: Wei et al., Outlier Suppression+ (2023), section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear
from onnxslim.ir import Array, Editor, Model, Node, Value
from onnxslim.passes.quant.prepare.added import constant_behind
from onnxslim.passes.quant.prepare.neighbours import only_reader
from onnxslim.passes.quant.prepare.offsets import Offset, add_to, offset_of

Wanted = Callable[[Linear], bool]


@dataclass(frozen=True)
class Shift:
    """A tensor, where a constant is added to its channels, and where each reader takes it up: after
    the layer, or in what the tensor is added to."""

    value: Value
    made: Offset
    behind: tuple[tuple[Offset, Linear | None], ...]
    channels: int

    @property
    def layers(self) -> list[Linear]:
        """The layers that read it."""
        return [layer for _, layer in self.behind if layer is not None]

    def changes(self, z: Array) -> Iterator[tuple[Offset, Array]]:
        """What each constant [size] changes by when z [C] is taken off the channels."""
        yield self.made, self.made.spread(-z)
        for offset, layer in self.behind:
            moved = z if layer is None else layer.matrix()[0].astype(np.float64) @ z
            yield offset, offset.spread(moved)


def shifts(model: Model, wanted: Wanted) -> list[Shift]:
    """The tensors of the main graph that can be shifted and that a wanted MatMul or Gemm reads."""
    found: dict[Value, Shift | None] = {}
    for node in model.graph:
        layer = linear(node)
        if isinstance(layer, Linear) and layer.input not in found and wanted(layer):
            found[layer.input] = _shift(layer.input, layer.in_features)
    return [shift for shift in found.values() if shift is not None]


def shift_channels(editor: Editor, chosen: Iterable[tuple[Shift, Array]]) -> None:
    """Take z [C] off the channels of each tensor, in place."""
    changes: dict[tuple[Node, int], tuple[Offset, Array]] = {}
    for shift, z in chosen:
        for offset, change in shift.changes(z):
            place = offset.node, offset.index
            before = changes[place][1] if place in changes else np.zeros(offset.size)
            changes[place] = offset, before + change
    for offset, change in changes.values():
        add_to(editor, offset, change)


def _shift(value: Value, channels: int) -> Shift | None:
    """None where a reader, or what makes the tensor, has no constant to take it up."""
    made = None if value.is_graph_output() else offset_of(value, channels)
    behind = [None if made is None else _behind(*use, channels) for use in value.uses()]
    taken = tuple(place for place in behind if place is not None)
    if made is None or len(taken) < len(behind):
        return None
    return Shift(value, made, taken, channels)


def _behind(node: Node, index: int, channels: int) -> tuple[Offset, Linear | None] | None:
    """Where one reader takes up what is taken off the channels that it reads."""
    value = node.inputs[index]
    if value is None or node.graph is not ir.graph_of(value):
        return None
    if ir.op(node) == "Add":
        other = node.inputs[1 - index]
        alone = other is not None and only_reader(other) is node
        offset = offset_of(other, channels) if other is not None and alone else None
        return None if offset is None else (offset, None)
    layer = linear(node)
    if not isinstance(layer, Linear) or layer.kind == "conv" or index != layer.input_index:
        return None
    if layer.tap.axis != -1 or layer.bias_vector() is None:
        return None
    if layer.bias_index is not None:
        return Offset(node, layer.bias_index, layer.out_features), layer
    place = constant_behind(node, layer.out_features)
    return None if place is None else (Offset(*place, layer.out_features), layer)
