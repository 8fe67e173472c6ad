"""The whole plan before any edit: which tensors and weights get which integers.

Needs to know the range of each tensor that will be quantized (`Ranges`); where that comes from,
calibration or BatchNormalization, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear
from onnxslim.ir import Array, Node, Value
from onnxslim.passes.quant.chains import Chain
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.facts import Facts, Range
from onnxslim.passes.quant.qparams import (
    Affine,
    QParams,
    QWeight,
    asymmetric,
    quantize_weight,
    through,
    widened_for_bias,
    within,
)
from onnxslim.passes.quant.regions import Regions, activations
from onnxslim.passes.quant.smooth import smoothing
from onnxslim.pipeline.base import Declined


@dataclass(frozen=True)
class Edge:
    """A tensor that becomes integers: Q reads `chain.at`, what DQ gives stands for `chain.out`."""

    chain: Chain
    quantize: QParams
    dequantize: QParams
    everywhere: bool  # all readers take the integers' value, or only the int8 ones
    smooth: Array | None = None  # the tensor is divided by it, [C], and the weights multiplied


@dataclass(frozen=True)
class LayerPlan:
    """A linear layer in int8: its integers, and its bias as a real number."""

    layer: Linear
    weight: QWeight
    bias: Array | None  # float64 [out], corrected; None where there is none
    x: QParams


@dataclass(frozen=True)
class Plan:
    """What the quant pass is going to do."""

    regions: Regions
    edges: Mapping[Value, Edge]  # by the tensor that int8 nodes read
    layers: Mapping[Node, LayerPlan]
    constants: Mapping[tuple[Node, int], QParams]
    declined: tuple[Declined, ...] = ()

    def around(self, value: Value) -> list[Node]:
        """The int8 nodes that make or read a tensor."""
        return self.regions.around(value)


def tensors_to_see(regions: Regions) -> list[Value]:
    """The tensors whose range the plan needs: each edge where Q reads and where DQ gives."""
    wanted: dict[Value, None] = {}
    for out in edge_values(regions):
        chain = regions.chains[out]
        wanted[chain.out if chain.affine.trivial else chain.at] = None
        wanted[chain.out] = None
    return list(wanted)


def edge_values(regions: Regions) -> list[Value]:
    """The tensors that are read or made as integers, in the order of their chains."""
    return [out for out in regions.chains if _is_edge(regions, out)]


def _is_edge(regions: Regions, out: Value) -> bool:
    if ir.constant(out) is not None:
        return False
    maker = regions.maker(out)
    if maker is not None and regions.leaves_integers(maker):
        return True
    return bool(regions.readers(out))


def make_plan(regions: Regions, facts: Facts, choices: Choices) -> Plan | list[Node]:
    """The plan, or the nodes that cannot be part of it because a range is unknown."""
    unknown: list[Node] = []
    edges: dict[Value, Edge] = {}
    for group in _tied(regions, edge_values(regions)):
        seen = [_range(regions, facts, choices, value) for value in group]
        known = [interval for interval in seen if interval is not None]
        if len(known) < len(group):
            unknown.extend(node for value in group for node in regions.around(value))
            continue
        edges.update(_group_edges(regions, group, known))
    if unknown:
        return unknown
    if choices.smooth:
        edges.update(_smoothed(regions, edges, facts))
    layers = {
        node: _layer(layer, edges[layer.input], facts, choices)
        for node, layer in regions.layers.items()
        if node in regions.nodes
    }
    return Plan(regions, edges, layers, _constants(regions), tuple(regions.declined))


def _range(regions: Regions, facts: Facts, choices: Choices, value: Value) -> Range | None:
    return facts.range(str(value.name), choices.method, choices.percentile)


def _smoothed(regions: Regions, edges: Mapping[Value, Edge], facts: Facts) -> dict[Value, Edge]:
    """The edges that are better divided channel by channel; only float tensors that nothing but
    MatMul and Gemm reads as integers."""
    found: dict[Value, Edge] = {}
    for value, edge in edges.items():
        layers = [regions.layers.get(node) for node, _ in regions.readers(value)]
        known = [layer for layer in layers if layer is not None and layer.kind != "conv"]
        channels = facts.channels(str(value.name))
        if edge.everywhere or channels is None or not known or len(known) < len(layers):
            continue
        weights = [layer.matrix()[0] for layer in known]
        if any(weight.shape[1] != len(channels.mean) for weight in weights):
            continue
        s = smoothing(channels, weights)
        if s is not None:
            low, high = float((channels.min / s).min()), float((channels.max / s).max())
            params = asymmetric(low, high)
            found[value] = replace(edge, quantize=params, dequantize=params, smooth=s)
    return found


def _tied(regions: Regions, values: list[Value]) -> list[list[Value]]:
    """Tensors that must have the same parameters, because nodes only move integers between them."""
    parent = {value: value for value in values}

    def root(value: Value) -> Value:
        while parent[value] is not value:
            parent[value] = value = parent[parent[value]]
        return value

    for node, rule in regions.nodes.items():
        if rule.output == "same":
            ends = [node.inputs[i] for i in activations(node, rule)] + list(node.outputs)
            known = [value for value in ends if value is not None and value in parent]
            for other in known[1:]:
                parent[root(other)] = root(known[0])
    groups: dict[Value, list[Value]] = {}
    for value in values:
        groups.setdefault(root(value), []).append(value)
    return list(groups.values())


def _group_edges(regions: Regions, group: list[Value], seen: list[Range]) -> dict[Value, Edge]:
    low, high = min(r[0] for r in seen), max(r[1] for r in seen)
    fixed = _fixed_range(regions, group)
    bounds = _shared_bounds(regions, group)
    params = asymmetric(*fixed) if fixed is not None else within(*bounds, low, high)
    edges: dict[Value, Edge] = {}
    for value in group:
        chain = regions.chains[value]
        quantize, dequantize = params, params
        if not chain.affine.trivial:
            try:
                quantize, dequantize = through(chain.affine, low, high)
            except ValueError:
                chain = replace(chain, out=value, at=value, affine=Affine())
        edges[value] = Edge(chain, quantize, dequantize, _everywhere(regions, value))
    return edges


def _everywhere(regions: Regions, value: Value) -> bool:
    maker = regions.maker(value)
    return maker is not None and regions.leaves_integers(maker)


def _fixed_range(regions: Regions, group: list[Value]) -> Range | None:
    for value in group:
        maker = regions.maker(value)
        if maker is not None and regions.chains[value].affine.trivial:
            rule = regions.nodes[maker]
            if rule.fixed_range is not None and len(group) == 1:
                return rule.fixed_range
    return None


def _shared_bounds(regions: Regions, group: list[Value]) -> Range:
    bounds = [regions.chains[value].bounds for value in group]
    return max(b[0] for b in bounds), min(b[1] for b in bounds)


def _constants(regions: Regions) -> dict[tuple[Node, int], QParams]:
    found: dict[tuple[Node, int], QParams] = {}
    for node, rule in regions.nodes.items():
        if not rule.constants:
            continue
        for index in activations(node, rule):
            constant = ir.array(node.inputs[index])
            if constant is not None:
                found[node, index] = asymmetric(float(constant.min()), float(constant.max()))
    return found


def _layer(layer: Linear, edge: Edge, facts: Facts, choices: Choices) -> LayerPlan:
    weight, x = _scaled_weight(layer, edge.smooth), edge.dequantize
    axis = 0 if layer.kind == "conv" or layer.transposed else 1
    quantized = quantize_weight(weight, axis, choices.per_channel, choices.bits)
    if layer.bias_index is None:
        return LayerPlan(layer, quantized, None, x)
    bias = layer.bias_vector()
    assert bias is not None
    channels = facts.channels(str(layer.input.name)) if choices.bias_correction else None
    if channels is not None:
        mean = channels.mean if edge.smooth is None else channels.mean / edge.smooth
        bias = bias + bias_correction(layer, weight, quantized, mean)
    quantized = widened_for_bias(quantized, bias, x.scale, weight)
    keep = layer.bias is not None or bool(np.any(bias))
    return LayerPlan(layer, quantized, bias if keep else None, x)


def _scaled_weight(layer: Linear, smooth: Array | None) -> Array:
    """The weight in its own layout, its inputs multiplied by the divisors of the activation."""
    weight = ir.array(layer.weight)
    assert weight is not None
    if smooth is None:
        return weight
    rows = smooth if layer.transposed else smooth.reshape(-1, 1)
    return (weight * rows).astype(np.float32)


def bias_correction(layer: Linear, weight: Array, quantized: QWeight, mean: Array) -> Array:
    """(W - Wq) E[x] per output, [out]: what makes the mean of the output right again.

    `mean` is E[x] per channel, [C]; in a convolution it is taken for every tap of the window.
    Source: Nagel et al., Data-Free Quantization (2019), section 4.2.
    """
    difference: Array = weight.astype(np.float64) - quantized.dequantized()
    window = layer.in_features * layer.groups // len(mean) if layer.kind == "conv" else 1
    rows = np.repeat(mean, window).reshape(layer.groups, layer.in_features, 1)
    correction: Array = _matrix(layer, difference) @ rows
    return correction.reshape(-1)


def _matrix(layer: Linear, weight: Array) -> Array:
    """A weight in the layer's layout as [groups, out, d]."""
    rows = weight if layer.kind == "conv" or layer.transposed else np.transpose(weight)
    return rows.reshape(layer.groups, -1, layer.in_features)
