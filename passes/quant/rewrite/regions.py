"""Which nodes run in int8: the linear layers, and what lies between int8 neighbours."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear, transposed_conv
from onnxslim.ir import Model, Node, Value
from onnxslim.passes.quant.rewrite.chains import Chain, chain_from
from onnxslim.passes.quant.uncovered import other_type
from onnxslim.pipeline.base import Declined
from onnxslim.targets import Form, StaticRule, Target


@dataclass
class Regions:
    """The nodes that run in int8, and the tensors around them."""

    rules: Mapping[str, StaticRule]
    form: Form
    nodes: dict[Node, StaticRule] = field(default_factory=dict["Node", StaticRule])
    layers: dict[Node, Linear] = field(default_factory=dict["Node", Linear])
    chains: dict[Value, Chain] = field(default_factory=dict["Value", Chain])  # by `out`
    declined: list[Declined] = field(default_factory=list["Declined"])

    def readers(self, value: Value) -> list[tuple[Node, int]]:
        """The int8 nodes that take a tensor as an activation, with the index of the input."""
        uses = ((use.node, use.idx) for use in value.uses())
        return [(n, i) for n, i in uses if n in self.nodes and i in activations(n, self.nodes[n])]

    def maker(self, value: Value) -> Node | None:
        """The int8 node whose output, after its chain, is this tensor."""
        chain = self.chains.get(value)
        node = chain.start.producer() if chain is not None else None
        return node if node in self.nodes else None

    def around(self, value: Value) -> list[Node]:
        """The int8 nodes that make or read a tensor."""
        maker = self.maker(value)
        readers = [node for node, _ in self.readers(value)]
        return readers if maker is None else [maker, *readers]

    def leaves_integers(self, node: Node) -> bool:
        """Whether the node's outputs are quantized."""
        output = self.nodes[node].output
        if output != "optional":
            return output != "float"
        return all(self.only_int8_readers(self.chain_of(value).out) for value in node.outputs)

    def only_int8_readers(self, value: Value) -> bool:
        """Whether everything that reads a tensor takes it as integers."""
        return not value.is_graph_output() and 0 < len(value.uses()) == len(self.readers(value))

    def floor(self, value: Value) -> float:
        """The number below which a tensor may be cut, as all that reads it does so."""
        if value.is_graph_output() or not value.uses():
            return -np.inf
        return min(self._cut(use.node) for use in value.uses())

    def _cut(self, node: Node) -> float:
        """The floor of one reader; of a LeakyRelu with a lower bound behind it, what reaches it."""
        rule = self.nodes.get(node)
        if rule is None or ir.op(node) != "LeakyRelu":
            return -np.inf if rule is None else rule.floor
        low = self.chain_of(node.outputs[0]).bounds[0]
        slope = float(ir.attribute(node, "alpha", 0.01))
        return low / slope if slope > 0 else -np.inf

    def chain_of(self, start: Value) -> Chain:
        """What follows an int8 kernel's output without a cost; nothing after a pure move."""
        producer = start.producer()
        rule = self.nodes.get(producer) if producer is not None else None
        if rule is None or rule.role == "move":
            return Chain(start, start, start)
        return chain_from(start, self.rules, self.form.affine)


def activations(node: Node, rule: StaticRule) -> tuple[int, ...]:
    """The inputs that are read as integers."""
    return tuple(range(len(node.inputs))) if rule.inputs is None else rule.inputs


def _identity_branch(node: Node) -> tuple[int, ...]:
    """The input that is not made by the linear layer that the node is fused with, if there is one.

    Where both are, it is the second one: the layer of the shortcut.
    """
    fused = [i for i, value in enumerate(node.inputs) if value is not None and _only_for(value)]
    others = [i for i in range(len(node.inputs)) if i not in fused[:1]]
    return tuple(others) if fused else ()


def _only_for(value: Value) -> bool:
    """Whether a linear layer makes a tensor that nothing else reads."""
    producer = value.producer()
    made = producer is not None and not isinstance(linear(producer), str)
    return made and len(value.uses()) == 1 and not value.is_graph_output()


def find_regions(model: Model, target: Target, excluded: Collection[Node] = ()) -> Regions:
    """The largest set of nodes of the main graph that fits together, and why others are out.

    All that the target knows start inside; those that lack an int8 neighbour leave until nothing
    changes (at most as many rounds as nodes; a node that left does not come back).
    """
    regions = Regions(target.static, target.form)
    for node in model.graph:
        rule = target.static.get(ir.op(node))
        if rule is None or rule.role == "absorbed" or node in excluded:
            continue
        reason = _admit(regions, node, rule)
        if reason is not None and rule.role == "linear":
            regions.declined.append(Declined(node.name or str(node.outputs[0].name), reason))
    while leaving := _unsupported(regions):
        for node in leaving:
            del regions.nodes[node]
    regions.chains = {chain.out: chain for chain in _chains(model, regions)}
    return regions


def _misfit(node: Node, rule: StaticRule) -> str | None:
    for name, allowed in rule.attributes.items():
        value = ir.attribute(node, name)
        if value is not None and value not in allowed:
            return f"{name}={value} has no int8 kernel"
    if rule.role == "residual" and not activations(node, rule):
        return "no linear layer makes an input for it alone"
    for index in activations(node, rule):
        value = node.inputs[index]
        if value is None:
            return "an input is absent"
        constant = ir.constant(value)
        if constant is not None and (not rule.constants or constant.dtype.name != "FLOAT"):
            return "an input is a constant"
    for output in node.outputs:
        if output.type is not None and not _is_float(output):
            return other_type("its output", output.dtype)
    return None


def _is_float(value: Value) -> bool:
    return value.dtype is None or value.dtype.name == "FLOAT"


def _admit(regions: Regions, node: Node, rule: StaticRule) -> str | None:
    """Take a node in, or say why not."""
    if rule.role == "residual":
        rule = replace(rule, inputs=_identity_branch(node))
    layer = _layer(node) if rule.role == "linear" else None
    if rule.products and isinstance(layer, str) and _computed(node):
        rule, layer = replace(rule, inputs=(0, 1), weight=None), None
    reason = layer if isinstance(layer, str) else _misfit(node, rule)
    if reason is None and isinstance(layer, Linear):
        reason = _unfit_layer(layer, rule)
        regions.layers[node] = layer
    if reason is None:
        regions.nodes[node] = rule
    return reason


def _layer(node: Node) -> Linear | str:
    return transposed_conv(node) if ir.op(node) == "ConvTranspose" else linear(node)


def _computed(node: Node) -> bool:
    """Whether both inputs are tensors in float that the model computes."""
    makers = [None if value is None else value.producer() for value in node.inputs]
    quantized = any(maker is not None and ir.op(maker) == "DequantizeLinear" for maker in makers)
    return not quantized and all(ir.constant(value) is None for value in node.inputs)


def _both_below(sizes: tuple[int, int], most: tuple[int, int]) -> bool:
    return sizes[0] <= most[0] and sizes[1] <= most[1]


def _unfit_layer(layer: Linear, rule: StaticRule) -> str | None:
    weight = ir.array(layer.weight)
    if weight is None or weight.dtype != np.float32:
        return other_type("the weight", layer.weight.dtype)
    if not np.isfinite(weight).all():
        return "the weight holds NaN or infinity"
    if layer.bias is not None and layer.bias_vector() is None:
        return "the bias is computed, or differs from row to row"
    inputs, depthwise = weight.shape[1], layer.groups == layer.out_features
    if layer.groups > 1 and inputs < rule.least_group and not (inputs == 1 and depthwise):
        return f"with {inputs} inputs per group it is faster in float"
    first = layer.groups == 1 and layer.input.is_graph_input()
    if first and _both_below((layer.in_features, len(weight)), rule.stem):
        return "a first layer as small as this is faster in float"
    return None


def _chains(model: Model, regions: Regions) -> Iterator[Chain]:
    """The chain of every tensor of the main graph that is not inside of another's chain."""
    inner: set[Value] = set()
    starts = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    for start in starts:
        if start in inner:
            continue
        chain = regions.chain_of(start)
        inner.update(output for node in chain.nodes for output in node.outputs)
        yield chain


def _unsupported(regions: Regions) -> list[Node]:
    graph = next(iter(regions.nodes)).graph if regions.nodes else None
    if graph is None:
        return []
    starts = (value for node in regions.nodes for value in node.outputs)
    regions.chains = {(chain := regions.chain_of(start)).out: chain for start in starts}
    return [
        node
        for node, rule in regions.nodes.items()
        if rule.role != "linear" and not _supported(regions, node, rule)
    ]


def _supported(regions: Regions, node: Node, rule: StaticRule) -> bool:
    """Whether the int8 nodes around it make it worth it."""
    if rule.role == "residual":
        makers = (value.producer() for value in node.inputs if value is not None)
        return any(maker in regions.layers and maker in regions.nodes for maker in makers)
    return _fed(regions, node, rule) and _wanted(regions, node)


def _fed(regions: Regions, node: Node, rule: StaticRule) -> bool:
    """Whether every activation comes as integers, or is quantized for a linear layer anyway."""
    return all(_available(regions, node.inputs[index]) for index in activations(node, rule))


def _available(regions: Regions, value: Value | None) -> bool:
    if value is None or ir.constant(value) is not None:
        return True
    maker = regions.maker(value)
    if maker is not None and regions.leaves_integers(maker):
        return True
    return any(
        regions.nodes[node].role in ("linear", "residual") for node, _ in regions.readers(value)
    )


def _wanted(regions: Regions, node: Node) -> bool:
    """Whether an int8 node reads an output, after its chain."""
    return any(regions.readers(regions.chain_of(value).out) for value in node.outputs)
