"""Layers as models of their own: what is timed, and what gives the error of a changed weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear
from onnxslim.ir import Array, Model
from onnxslim.passes.lowrank.survey import Site

INPUT, OUTPUT = "x", "y"


def alone(sites: Sequence[Site], *, fixed: bool = True) -> Model:
    """A model of layers that read the same input; `fixed` to the size that was seen."""
    layer = sites[0].layer
    x = ir.Value(name=INPUT, shape=ir.Shape(input_shape(sites[0])) if fixed else None)
    x.dtype = dtype_of(layer)
    initializers: list[ir.Value] = []
    nodes: list[ir.Node] = []
    for number, site in enumerate(sites):
        constants = [
            _copied(f"{name}{number}", v)
            for name, v in (("w", site.layer.weight), ("b", site.layer.bias))
        ]
        own = [v for v in constants if v is not None]
        initializers += own
        nodes.append(_node(site.layer, x, own, number))
    graph = ir.Graph(
        [x],
        [node.outputs[0] for node in nodes],
        nodes=nodes,
        initializers=initializers,
        opset_imports={"": _opset(layer)},
        name="layer",
    )
    return ir.Model(graph, ir_version=8)


def changed(site: Site, change: Array, shift: Array) -> Model:
    """A model that gives dW x + db for inputs of any size. dW [groups, out, d], db [out]."""
    layer = site.layer
    x = ir.Value(name=INPUT)
    x.dtype = dtype_of(layer)
    weight = constant("w", layer.from_matrix(change))
    spread = shift.astype(weight.dtype.numpy() if weight.dtype else np.float32)
    if layer.kind == "conv":
        spread = spread.reshape(-1, *(1,) * len(site.shape.kernel))
    bias = constant("b", spread)
    node = _node(layer, x, [weight], 0)
    inner = node.outputs[0]
    inner.name = "product"
    added = ir.Node("", "Add", [inner, bias], name="shift")
    added.outputs[0].name, added.outputs[0].type = OUTPUT, x.type
    graph = ir.Graph(
        [x],
        added.outputs,
        nodes=[node, added],
        initializers=[weight, bias],
        opset_imports={"": _opset(layer)},
        name="change",
    )
    return ir.Model(graph, ir_version=8)


def _node(layer: Linear, x: ir.Value, constants: Sequence[ir.Value], number: int) -> ir.Node:
    attributes = list(layer.node.attributes.values())
    node = ir.Node("", layer.node.op_type, [x, *constants], attributes, name=f"layer{number}")
    node.outputs[0].name = f"{OUTPUT}{number or ''}"
    node.outputs[0].type = x.type
    return node


def constant(name: str, content: Array) -> ir.Value:
    """An initializer."""
    made = ir.Value(name=name, shape=ir.Shape(content.shape))
    tensor = ir.make_tensor(content, name)
    made.dtype, made.const_value = tensor.dtype, tensor
    return made


def _copied(name: str, value: ir.Value | None) -> ir.Value | None:
    tensor, array = ir.constant(value), ir.array(value)
    if tensor is None or array is None:
        return None
    made = ir.Value(name=name, shape=ir.Shape(array.shape))
    made.dtype = tensor.dtype
    made.const_value = tensor
    return made


def _opset(layer: Linear) -> int:
    graph = layer.node.graph
    return 17 if graph is None else int(graph.opset_imports.get("", 17))


def dtype_of(layer: Linear) -> ir.DataType:
    """Of the layer's numbers."""
    tensor = ir.constant(layer.weight)
    return ir.DataType.FLOAT if tensor is None else tensor.dtype


def input_shape(site: Site) -> list[int]:
    """The shape of the layer's input with all leading axes in one."""
    shape = site.shape
    if site.layer.tap.window is not None:
        return [shape.rows, shape.channels * shape.groups, *shape.sites_in]
    if site.layer.tap.axis == 0:
        return [shape.features, shape.rows]
    return [shape.rows, shape.features]


def input_of(site: Site, seed: int) -> Array:
    """Numbers for it."""
    numbers = np.random.default_rng(seed).standard_normal(input_shape(site))
    return numbers.astype(dtype_of(site.layer).numpy())
