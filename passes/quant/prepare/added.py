"""The constant behind an operator that takes no bias: where the correction of its mean can go."""

from __future__ import annotations

from onnxslim import ir
from onnxslim.analyses.linear import Linear
from onnxslim.ir import Node, Use


def added_constant(layer: Linear) -> Use | None:
    """Where the only reader of a layer's output adds one float32 number per output, or None."""
    if layer.bias_index is not None:
        return None
    return constant_behind(layer.node, layer.out_features)


def constant_behind(layer: Node, columns: int) -> Use | None:
    """The same for a node that has so many columns of outputs."""
    product = layer.outputs[0]
    uses = tuple(product.uses())
    if product.is_graph_output() or len(uses) != 1:
        return None
    node, index = uses[0].node, 1 - uses[0].idx
    if ir.op(node) != "Add" or node.graph is not layer.graph:
        return None
    constant = ir.constant(node.inputs[index])
    if constant is None or constant.dtype.name != "FLOAT" or not len(constant.shape):
        return None
    fits = constant.shape[-1] == constant.size == columns > 1
    return (node, index) if fits else None
