"""The whole plan before any edit: which tensors and weights get which integers.

Needs to know the range of each tensor that will be quantized (`Ranges`); where that comes from,
calibration or BatchNormalization, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onnxslim import ir
from onnxslim.analyses.linear import Linear
from onnxslim.ir import Array, Node, Value
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.know.facts import Channels, Facts, Range
from onnxslim.passes.quant.prepare.added import added_constant
from onnxslim.passes.quant.qparams import IDENTITY, QParams, covering, through, within
from onnxslim.passes.quant.rewrite.chains import Chain
from onnxslim.passes.quant.rewrite.joined import given_params
from onnxslim.passes.quant.rewrite.regions import Regions, activations
from onnxslim.passes.quant.weights.blocks import BITS
from onnxslim.passes.quant.weights.layers import LayerPlan, plan_layer
from onnxslim.passes.quant.weights.smooth import smoothing
from onnxslim.pipeline.base import Declined, Layer
from onnxslim.targets import StaticRule


@dataclass(frozen=True)
class Edge:
    """A tensor that becomes integers: Q reads `chain.at`, what DQ gives stands for `chain.out`."""

    chain: Chain
    quantize: QParams
    dequantize: QParams
    everywhere: bool  # all readers take the integers' value, or only the int8 ones
    smooth: Array | None = None  # the tensor is divided by it, [C], and the weights multiplied


@dataclass(frozen=True)
class Plan:
    """What the quant pass is going to do."""

    regions: Regions
    edges: Mapping[Value, Edge]  # by the tensor that int8 nodes read
    layers: Mapping[Node, LayerPlan]
    constants: Mapping[tuple[Node, int], QParams]
    declined: tuple[Declined, ...] = ()
    alone: tuple[Layer, ...] = ()  # layers of which the weight alone became integers

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


def make_plan(regions: Regions, facts: Facts, choices: Choices) -> Plan | dict[Node, str]:
    """The plan, or the nodes that cannot be part of it because a range is unknown, and why."""
    unknown: dict[Node, str] = {}
    edges: dict[Value, Edge] = {}
    for group in _tied(regions, edge_values(regions)):
        seen = [_range(regions, facts, choices, value) for value in group]
        known = [interval for interval in seen if interval is not None]
        if len(known) < len(group):
            missing = str(group[seen.index(None)].name)
            around = (node for value in group for node in regions.around(value))
            unknown.update(dict.fromkeys(around, facts.unknown(missing)))
            continue
        edges.update(_group_edges(regions, group, known))
    if unknown:
        return unknown
    if choices.smooth:
        edges.update(_smoothed(regions, edges, facts))
    layers = {
        node: _layer_plan(regions, node, layer, edges[layer.input], facts, choices)
        for node, layer in regions.layers.items()
        if node in regions.nodes
    }
    return Plan(regions, edges, layers, _constants(regions), tuple(regions.declined))


def _layer_plan(
    regions: Regions, node: Node, layer: Linear, edge: Edge, facts: Facts, choices: Choices
) -> LayerPlan:
    """The integers of a layer; those of the plan before, where nothing that matters has changed."""
    own = _own(_for_rule(choices, regions.nodes[node]), str(node.outputs[0].name))
    added = _takes_shift(regions, layer)
    smooth = None if edge.smooth is None else edge.smooth.tobytes()
    name, content = str(node.outputs[0].name), id(ir.constant(layer.weight))
    key = content, edge.dequantize, smooth, own, regions.form, added, id(facts.pairs.get(name))
    known = facts.plans.get(name)
    if known is None or known[0] != key:
        x = edge.dequantize
        plan = plan_layer(layer, x, edge.smooth, facts, own, regions.form, added)
        facts.plans[name] = known = (key, plan)
    assert isinstance(known[1], LayerPlan)
    return replace(known[1], layer=layer)


def _own(choices: Choices, name: str) -> Choices:
    """The choices for one layer."""
    bits = 8 if name in choices.wide else BITS if name in choices.coarse else choices.bits
    none = frozenset[str]()
    return replace(choices, bits=bits, wide=none, excluded=none, alone=none, coarse=none)


def _takes_shift(regions: Regions, layer: Linear) -> bool:
    """Whether the next node adds a constant in float."""
    place = added_constant(layer)
    return place is not None and place[0] not in regions.nodes


def _for_rule(choices: Choices, rule: StaticRule) -> Choices:
    """The choices as far as the kernel takes them."""
    return choices if rule.per_channel else replace(choices, per_channel=False)


def _range(regions: Regions, facts: Facts, choices: Choices, value: Value) -> Range | None:
    given = given_params(value)
    if given is not None:
        return given.low, given.high
    readers = (regions.layers.get(node) for node, _ in regions.readers(value))
    layers = [layer for layer in readers if layer is not None]
    return facts.range(str(value.name), choices.method, choices.percentile, layers)


def _smoothed(regions: Regions, edges: Mapping[Value, Edge], facts: Facts) -> dict[Value, Edge]:
    """The edges that are better divided channel by channel; only float tensors that nothing but
    MatMul and Gemm reads as integers."""
    found: dict[Value, Edge] = {}
    for value, edge in edges.items():
        layers = [regions.layers.get(node) for node, _ in regions.readers(value)]
        known = [
            layer for layer in layers if layer is not None and layer.kind in ("gemm", "matmul")
        ]
        channels = facts.channels(str(value.name), -1)
        if edge.everywhere or channels is None or not known or len(known) < len(layers):
            continue
        s = _divisors(channels, known, facts)
        if s is not None:
            low, high = float((channels.min / s).min()), float((channels.max / s).max())
            params = covering(low, high, regions.form.activation)
            found[value] = replace(edge, quantize=params, dequantize=params, smooth=s)
    return found


def _divisors(x: Channels, layers: list[Linear], facts: Facts) -> Array | None:
    """What to divide a tensor by for the layers that read it, found once for all trials."""
    key = "smooth", layers[0].input.name, tuple(id(ir.constant(layer.weight)) for layer in layers)
    if key not in facts.memo:
        weights = [layer.matrix()[0] for layer in layers]
        fits = all(weight.shape[1] == len(x.mean) for weight in weights)
        facts.memo[key] = smoothing(x, weights) if fits else None
    return facts.memo[key]


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
    floor = min(map(regions.floor, group))
    low, high = max(min(r[0] for r in seen), floor), max(*(r[1] for r in seen), floor)
    fixed = _fixed_range(regions, group)
    bounds = _shared_bounds(regions, group)
    numbers = regions.form.activation
    params = covering(*fixed, numbers) if fixed else within(*bounds, low, high, numbers)
    given = given_params(group[0]) if len(group) == 1 else None
    fits = given is not None and given.numbers == numbers
    if given is not None and fits and bounds[0] <= given.low and given.high <= bounds[1]:
        params = given
    edges: dict[Value, Edge] = {}
    for value in group:
        chain = regions.chains[value]
        quantize, dequantize = params, params
        if not chain.affine.trivial:
            try:
                quantize, dequantize = through(chain.affine, low, high)
            except ValueError:
                chain = replace(chain, out=value, at=value, affine=IDENTITY)
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
                low, high = float(constant.min()), float(constant.max())
                found[node, index] = covering(low, high, regions.form.activation)
    return found
