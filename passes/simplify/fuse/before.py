"""Affine maps by constants folded into the layers behind them.

x * a + b -> Conv | ConvTranspose | Gemm | MatMul   becomes   the layer alone,
W' = W a by input channel, bias' = bias + W b (not where the layer pads with zeros)
x * a + b -> padded Conv                            becomes   x + b / a -> Conv', W' = W a
Also BatchNormalization, and also where several layers read the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Array, Editor, Node, Value
from onnxslim.passes.fold.affine import finite
from onnxslim.passes.fold.batchnorm import arithmetic, batchnorm_affine
from onnxslim.passes.simplify.fuse.axes import may_change_shape
from onnxslim.passes.simplify.fuse.fusion import Made, put
from onnxslim.passes.simplify.fuse.idioms import of_idiom
from onnxslim.passes.simplify.fuse.inputs import Layer, layer_behind
from onnxslim.passes.simplify.fuse.matmul import set_weight
from onnxslim.rewrite import Rewrite, Rule


@dataclass(frozen=True)
class _Map:
    """y = factor * x + offset; each one number, or one per channel."""

    x: Value
    factor: Array
    offset: Array


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    layers = _layers_behind(node)
    if layers is None:
        return None
    found = _map_of(node, layers[0].channel_axis, facts)
    if isinstance(found, str):
        return found
    if (reason := of_idiom(node)) is not None:
        return reason
    if found.offset.any() and not all(layer.takes_offset for layer in layers):
        if ir.op(node) not in ("Add", "Sub"):
            return "a layer behind it pads with zeros, or has no bias to take the offset"
        return _match_swap(node, found, layers, facts)
    if (reason := _misfit(found, layers)) is not None:
        return reason
    return lambda editor: _fold(editor, node, found, layers)


def _layers_behind(node: Node) -> list[Layer] | None:
    """All that read a node's output, where they are layers whose weight can be changed."""
    value = node.outputs[0]
    if value.is_graph_output() or not value.uses() or any(o.uses() for o in node.outputs[1:]):
        return None
    layers: list[Layer] = []
    for use in value.uses():
        layer = layer_behind(use.node) if use.idx == 0 else None
        if layer is None or use.node.graph is not node.graph:
            return None
        layers.append(layer)
    return layers if len({layer.channel_axis for layer in layers}) == 1 else None


def _map_of(node: Node, axis: int, facts: Facts) -> _Map | str:
    """What the node does to each channel of the layers, whose axis counts from the end."""
    if ir.op(node) == "BatchNormalization":
        affine = batchnorm_affine(node)
        if isinstance(affine, str):
            return affine
        rank = facts.rank(affine.x)
        if rank is None or rank + axis != 1:
            return "its channels are not those of the layer behind it"
        return _Map(affine.x, affine.factor, affine.offset)
    does = arithmetic(node)
    if isinstance(does, str):
        return does
    if (reason := may_change_shape(does.constant.shape, does.x, facts)) is not None:
        return reason
    shape = does.constant.shape
    if does.constant.size > 1 and (len(shape) < -axis or shape[axis] != does.constant.size):
        return f"its constant of shape {list(shape)} does not go by channel"
    return _Map(does.x, does.factor.ravel(), does.offset.ravel())


def _misfit(found: _Map, layers: Sequence[Layer]) -> str | None:
    for layer in layers:
        if not {found.factor.size, found.offset.size} <= {1, layer.channels}:
            return f"'{ir.label(layer.node)}' has {layer.channels} input channels"
    return None


def _match_swap(
    node: Node, found: _Map, layers: Sequence[Layer], facts: Facts
) -> Rewrite | str | None:
    """The factor before an offset that must stay: (x * a + b) = (x + b / a) * a."""
    scale = found.x.producer()
    if scale is None or ir.op(scale) not in ("Mul", "Div") or scale.graph is not node.graph:
        return None
    if len(found.x.uses()) != 1 or found.x.is_graph_output():
        return "what scales it is read elsewhere too"
    first = _map_of(scale, layers[0].channel_axis, facts)
    if isinstance(first, str):
        return first
    factor = first.factor * found.factor
    with np.errstate(divide="ignore", invalid="ignore"):
        offset: Array = found.offset / factor
    if not np.isfinite(offset).all() or (np.abs(factor) < 1e-6).any():
        return "it scales by zero, or nearly"
    both = _Map(first.x, factor, offset)
    if (reason := _misfit(both, layers)) is not None:
        return reason
    return lambda editor: _swap(editor, node, both, layers)


def _swap(editor: Editor, node: Node, both: _Map, layers: Sequence[Layer]) -> Sequence[Node]:
    weights = [layer.scale(both.factor) for layer in layers]
    dtype = layers[0].tensor.dtype.numpy()
    constant = finite(both.offset, dtype)
    if constant.size > 1:
        constant = constant.reshape((-1,) + (1,) * (-1 - layers[0].channel_axis))
    else:
        constant = constant.reshape(())
    made = put(editor, node, (Made("Add", (both.x, constant)),))
    for layer, weight in zip(layers, weights, strict=True):
        set_weight(editor, layer.node, 1, weight)
    return made


def _fold(editor: Editor, node: Node, found: _Map, layers: Sequence[Layer]) -> Sequence[Node]:
    weights = [layer.scale(found.factor) for layer in layers]
    biases = [_new_bias(layer, found) for layer in layers]
    editor.bypass(node, found.x)
    nodes: list[Node] = []
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        if (found.factor != 1).any():
            set_weight(editor, layer.node, 1, weight)
        nodes.append(layer.node if bias is None else layer.set_bias(editor, bias))
    return nodes


def _new_bias(layer: Layer, found: _Map) -> Array | None:
    if not found.offset.any():
        return None
    return finite(layer.bias + layer.respond(found.offset), layer.tensor.dtype.numpy())


BEFORE_LAYER = Rule(
    "affine-into-next", frozenset({"Mul", "Div", "Add", "Sub", "BatchNormalization"}), _match,
    "Mul, Add, BatchNormalization by constants -> layer -> layer'", exact=False,
)  # fmt: skip
RULES: tuple[Rule, ...] = (BEFORE_LAYER,)
