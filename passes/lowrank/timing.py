"""Whether a pair runs faster than its layer: both as models of one layer, run in turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear
from onnxslim.analyses.measured import measured_ms
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.lowrank.emit import Pair, emit
from onnxslim.passes.lowrank.survey import Site
from onnxslim.pipeline.base import Environment

_NOISE = 0.97  # only what is faster by more than that counts


@dataclass(frozen=True)
class Speed:
    """The median time of the layer and of its pair, measured in turns, in milliseconds."""

    layer_ms: float
    pair_ms: float

    @property
    def faster(self) -> bool:
        """Whether the pair is faster by more than the noise of such measurements."""
        return self.pair_ms < _NOISE * self.layer_ms


def measure(site: Site, made: Pair, env: Environment) -> Speed | None:
    """The speed of both on inputs of the size seen; None where they cannot be run alone."""
    whole = alone(site)
    cut = ir.snapshot(whole)
    found = linear(next(iter(cut.graph)))
    if isinstance(found, str):
        return None
    emit(Editor(cut), found, site.shape, made)
    try:
        return Speed(*measured_ms([whole, cut], {"x": _input(site, env.seed)}, env))
    except RuntimeUnavailable:
        return None


def alone(site: Site) -> Model:
    """A model of the layer only, with an input of the size that was seen."""
    layer = site.layer
    dtype = _dtype(layer)
    x = ir.Value(name="x", shape=ir.Shape(_input_shape(site)))
    x.dtype = dtype
    constants = [_copied(name, v) for name, v in (("w", layer.weight), ("b", layer.bias))]
    initializers = [v for v in constants if v is not None]
    attributes = list(layer.node.attributes.values())
    node = ir.Node("", layer.node.op_type, [x, *initializers], attributes, name="layer")
    node.outputs[0].name = "y"
    node.outputs[0].dtype = dtype
    graph = ir.Graph(
        [x],
        node.outputs,
        nodes=[node],
        initializers=initializers,
        opset_imports={"": _opset(layer)},
        name="layer",
    )
    return ir.Model(graph, ir_version=8)


def _opset(layer: Linear) -> int:
    graph = layer.node.graph
    return 17 if graph is None else int(graph.opset_imports.get("", 17))


def _dtype(layer: Linear) -> ir.DataType:
    tensor = ir.constant(layer.weight)
    return ir.DataType.FLOAT if tensor is None else tensor.dtype


def _copied(name: str, value: ir.Value | None) -> ir.Value | None:
    tensor, array = ir.constant(value), ir.array(value)
    if tensor is None or array is None:
        return None
    made = ir.Value(name=name, shape=ir.Shape(array.shape))
    made.dtype = tensor.dtype
    made.const_value = tensor
    return made


def _input_shape(site: Site) -> list[int]:
    shape = site.shape
    if site.layer.tap.window is not None:
        return [shape.rows, shape.channels * shape.groups, *shape.sites_in]
    if site.layer.tap.axis == 0:
        return [shape.features, shape.rows]
    return [shape.rows, shape.features]


def _input(site: Site, seed: int) -> Array:
    numbers = np.random.default_rng(seed).standard_normal(_input_shape(site))
    return numbers.astype(_dtype(site.layer).numpy())
