"""Common subexpressions: the same operator on the same inputs is computed once.

f(x), f(x) -> f(x), read by both readers; a node of a subgraph may read one of an outer graph.
Never: random operators, other domains, nodes with subgraphs, quantization.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import cast

from onnxslim import ir
from onnxslim.errors import EditError
from onnxslim.ir import Attr, AttributeType, Editor, Model, Node, Scope, TensorProtocol
from onnxslim.passes.fold.semantics import DOMAINS, QUANTIZATION, RANDOM

_COMMUTATIVE = frozenset({"Add", "And", "Equal", "Mul", "Or", "Xor"})
_TENSOR_BYTES = 1024
"""Larger tensors of attributes are the same only if they are one object."""


def share_equal_nodes(editor: Editor, model: Model) -> int:
    """Let equal nodes be one, in all scopes; how many went away. Linear."""
    roots: list[Scope] = [model.graph, *model.functions.values()]
    return sum(_Table(editor).share(root) for root in roots)


class _Table:
    """What was computed before the place looked at, in this graph and the ones around it."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._seen: dict[Hashable, Node] = {}

    def share(self, root: Scope) -> int:
        count = 0
        stack: list[tuple[Iterator[Node], list[Hashable]]] = [(iter(list(root)), [])]
        while stack:
            nodes, keys = stack[-1]
            node = next(nodes, None)
            if node is None:
                for key in keys:
                    del self._seen[key]
                stack.pop()
                continue
            if node.attributes:
                stack.extend((iter(list(graph)), []) for graph in ir.subgraphs(node))
            count += self._visit(node, keys)
        return count

    def _visit(self, node: Node, keys: list[Hashable]) -> int:
        if (key := _key(node)) is None:
            return 0
        first = self._seen.get(key)
        if first is None:
            self._seen[key] = node
            keys.append(key)
            return 0
        return _replace(self._editor, node, first)


def _replace(editor: Editor, node: Node, first: Node) -> int:
    """An output keeps its name where it can: see `Editor.bypass`."""
    try:
        if len(node.outputs) == 1:
            editor.bypass(node, first.outputs[0])
            return 1
        if any(value.is_graph_output() for value in node.outputs):
            return 0
        outputs = [
            stand_in if value.uses() else None
            for value, stand_in in zip(node.outputs, first.outputs, strict=True)
        ]
        editor.replace_node(node, (), outputs)
    except EditError:  # both are graph outputs, or of different graphs
        return 0
    return 1


def _key(node: Node) -> Hashable | None:
    """What makes two nodes equal; None for a node that is computed for itself."""
    if node.domain not in DOMAINS or node.op_type in RANDOM | QUANTIZATION or not node.outputs:
        return None
    inputs = [0 if value is None else id(value) for value in node.inputs]
    if node.op_type in _COMMUTATIVE:
        inputs.sort()
    attributes = [_content(attribute) for attribute in node.attributes.values()]
    if None in attributes:
        return None
    named = tuple(bool(value.name) for value in node.outputs)
    return (ir.op(node), tuple(inputs), named, frozenset(attributes))


def _content(attribute: Attr) -> Hashable | None:
    name, kind = attribute.name, attribute.type
    if attribute.is_ref():
        return (name, "ref", attribute.ref_attr_name)
    if kind == AttributeType.TENSOR:
        return (name, *_tensor(attribute.as_tensor()))
    if kind in (AttributeType.FLOAT, AttributeType.INT, AttributeType.STRING):
        return (name, kind, repr(attribute.value))
    if kind in (AttributeType.FLOATS, AttributeType.INTS, AttributeType.STRINGS):
        return (name, kind, repr(tuple(cast("tuple[object, ...]", attribute.value))))
    return None


def _tensor(tensor: TensorProtocol) -> tuple[Hashable, ...]:
    if tensor.nbytes > _TENSOR_BYTES or tensor.dtype == ir.DataType.STRING:
        return (id(tensor),)
    return (tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes())
