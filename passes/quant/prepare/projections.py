"""Products of one tensor that attention reads become one product: fewer kernels, and wider ones.

x W1 + b1, x W2 + b2, x W3 + b3   becomes   Split(x [W1 W2 W3] + [b1 b2 b3])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.analyses.linear import Linear, linear
from onnxslim.ir import Array, Editor, Node, Value
from onnxslim.passes.quant.contrib import DOMAIN
from onnxslim.passes.quant.prepare.added import added_constant
from onnxslim.passes.quant.prepare.attention import ATTENTION
from onnxslim.rewrite import Rewrite, Rule


@dataclass(frozen=True)
class Projection:
    """An input of attention that is a product with a constant, and the bias added to it."""

    index: int
    layer: Linear
    weight: Array  # [in, out]
    bias: Array | None  # [out]


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    found = [projection(node, index) for index in range(3)]
    groups: dict[tuple[Value, bool], list[Projection]] = {}
    for part in found:
        if part is not None:
            key = part.layer.input, part.bias is None
            groups.setdefault(key, []).append(part)
    group = max(groups.values(), key=len, default=[])
    if len(group) < 2:
        return None
    return lambda editor: _replace(editor, node, group)


def projection(node: Node, index: int) -> Projection | None:
    """What makes an input, if nothing else reads it, its product or its weight."""
    value = node.inputs[index]
    maker = None if value is None else value.producer()
    if value is None or maker is None or not _alone(value):
        return None
    if ir.op(maker) == "Add":
        products = [v.producer() for v in maker.inputs if v is not None and ir.constant(v) is None]
        maker = products[0] if len(products) == 1 else None
    layer = linear(maker) if maker is not None and ir.op(maker) == "MatMul" else None
    if not isinstance(layer, Linear) or not _alone(layer.node.outputs[0], layer.weight):
        return None
    weight, place, bias = ir.array(layer.weight), added_constant(layer), None
    if weight is None or weight.dtype != np.float32:
        return None
    if value is not layer.node.outputs[0]:
        bias = None if place is None else ir.array(place[0].inputs[place[1]])
        if bias is None or bias.ndim != 1:
            return None
    return Projection(index, layer, weight, bias)


def _alone(*values: Value) -> bool:
    return all(len(value.uses()) == 1 and not value.is_graph_output() for value in values)


def _replace(editor: Editor, node: Node, group: Sequence[Projection]) -> Sequence[Node]:
    scope, first = editor.scope_of(node), group[0].layer.node
    name = f"{first.outputs[0].name}.joined"

    def constant(hint: str, content: Array) -> Value:
        return editor.initializer(scope, f"{name}.{hint}", content)

    weight = constant("weight", np.concatenate([part.weight for part in group], axis=1))
    product = editor.node("MatMul", [group[0].layer.input, weight], outputs=[name], like=first)
    nodes = [product]
    biases = [part.bias for part in group if part.bias is not None]
    if biases:
        bias = constant("bias", np.concatenate(biases))
        nodes.append(editor.node("Add", [product.outputs[0], bias], outputs=[f"{name}.sum"]))
    sizes = constant("sizes", np.array([part.weight.shape[1] for part in group], np.int64))
    outputs = [f"{name}.{part.index}" for part in group]
    split = editor.node(
        "Split", [nodes[-1].outputs[0], sizes], outputs=outputs, attributes={"axis": -1}
    )
    nodes.append(split)
    editor.insert_before(node, nodes)
    for part, value in zip(group, split.outputs, strict=True):
        editor.rewire([(node, part.index)], value)
    editor.prune([maker for part in group for maker in _makers(part)])
    product.name = first.name  # the first product goes away, its name stays
    return [*nodes, node]


def _makers(part: Projection) -> list[Node]:
    product = part.layer.node
    readers = [use.node for use in product.outputs[0].uses()]
    return [product, *readers]


PROJECTIONS = Rule(
    "projections", frozenset({f"{DOMAIN}::{ATTENTION}"}), _match,
    "products of one tensor before attention -> one product, Split", exact=False,
)  # fmt: skip
