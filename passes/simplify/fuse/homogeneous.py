"""One constant factor moved back over all that is proportional to the output of a layer.

Where z is computed from x @ W + b by views, Neg, Concat, Add of parts that all are, and products
with what is not, z * s is the same with W s and b s: so the scale of attention scores goes over
the rotary embedding of the queries into their matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Node, Value
from onnxslim.passes.fold.batchnorm import arithmetic
from onnxslim.passes.simplify.fuse.axes import may_change_shape
from onnxslim.passes.simplify.fuse.idioms import of_idiom
from onnxslim.passes.simplify.fuse.matmul import Dense, dense_before
from onnxslim.passes.simplify.fuse.scales import move
from onnxslim.rewrite import Rewrite, Rule

_MOST = 32
"""Nodes of a region; also the depth of the search."""

_FIRST = frozenset(
    {"Expand", "Flatten", "Gather", "Neg", "Reshape", "Slice", "Split", "Squeeze", "Tile",
     "Transpose", "Unsqueeze"}
)  # fmt: skip
_ALL = frozenset({"Add", "Concat", "Sub", "Sum"})
_ONE = frozenset({"MatMul", "Mul"})


@dataclass
class _Region:
    """Values that are proportional to the layers' outputs, and the nodes that compute them."""

    values: set[Value] = field(default_factory=set[Value])
    nodes: set[Node] = field(default_factory=set[Node])
    layers: list[Dense] = field(default_factory=list[Dense])

    def copy(self) -> _Region:
        return _Region(set(self.values), set(self.nodes), list(self.layers))


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    does = arithmetic(node)
    if isinstance(does, str) or does.constant.size != 1 or ir.op(node) not in ("Mul", "Div"):
        return None
    if may_change_shape(does.constant.shape, does.x, facts) or of_idiom(node):
        return None
    region = _grow(does.x, _Region(), _MOST)
    if region is None or len(region.layers) != 1:
        return None
    if (reason := _leaves(region, node)) is not None:
        return reason
    layer = region.layers[0]
    factor = np.full(layer.sizes[1], does.factor.ravel()[0])
    return lambda editor: move(editor, node, does.x, layer, factor, np.zeros_like(factor))


def _grow(value: Value, region: _Region, depth: int) -> _Region | None:
    """The region with a value and all that it is proportional to, or None."""
    if value in region.values:
        return region
    node = value.producer()
    if node is None or depth == 0 or len(region.nodes) >= _MOST:
        return None
    layer = dense_before(value)
    if isinstance(layer, str):
        return None
    grown = region.copy()
    grown.values.add(value)
    if layer is not None:
        grown.nodes.update({node, layer.node})
        grown.layers.append(layer)
        return grown
    grown.nodes.add(node)
    kind = ir.op(node)
    if kind in _FIRST:
        return _grow_all(node.inputs[:1], grown, depth - 1)
    if kind in _ALL:
        return _grow_all(node.inputs, grown, depth - 1)
    return _grow_one(node, grown, depth - 1) if kind in _ONE else None


def _grow_all(values: Sequence[Value | None], region: _Region, depth: int) -> _Region | None:
    found: _Region | None = region
    for value in values:
        found = None if value is None or found is None else _grow(value, found, depth)
    return found


def _grow_one(node: Node, region: _Region, depth: int) -> _Region | None:
    """A product, of which one operand is proportional; the other one must stay as it is."""
    for index in (0, 1):
        value = node.inputs[index]
        grown = None if value is None else _grow(value, region, depth)
        if grown is not None and node.inputs[1 - index] not in grown.values:
            return grown
    return None


def _leaves(region: _Region, root: Node) -> str | None:
    """Why the factor cannot be taken out: something else reads what is in the region."""
    for value in region.values:
        if value.is_graph_output():
            return f"'{value.name}', which is proportional to it, is a graph output"
        if value.graph is not root.graph:
            return f"'{value.name}' is in another graph"
        for use in value.uses():
            if use.node is not root and not _scales(use.node, use.idx, region):
                return f"'{value.name}' is read by '{ir.label(use.node)}' too"
    return None


def _scales(reader: Node, index: int, region: _Region) -> bool:
    """Whether all outputs of a reader are in the region, and stay proportional to it."""
    used = [v for v in reader.outputs if v.uses() or v.is_graph_output()]
    if reader not in region.nodes or any(v not in region.values for v in used):
        return False
    if ir.op(reader) in _FIRST:
        return index == 0
    if ir.op(reader) in _ONE:  # not the square of something in the region
        return sum(v in region.values for v in reader.inputs) == 1
    return True


SCALE = Rule(
    "scale-into-matmul", frozenset({"Mul", "Div"}), _match,
    "MatMul -> views, sums, products -> Mul by a number -> the same of MatMul'", exact=False,
)  # fmt: skip
RULES: tuple[Rule, ...] = (SCALE,)
