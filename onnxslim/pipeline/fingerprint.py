"""A cheap fingerprint of a model, to check a pass that says that it changed nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from onnxslim.ir import Attr, AttributeType, Graph, Model, Node, Scope, Value, scopes

_LARGE = (AttributeType.TENSOR, AttributeType.TENSORS, AttributeType.SPARSE_TENSOR)
_GRAPHS = (AttributeType.GRAPH, AttributeType.GRAPHS)  # walked as scopes of their own


def fingerprint(model: Model) -> str:
    """A hash of names, edges, operators, attributes, types and of which tensor objects are held.

    Contents of tensors are not read: passes replace tensors and never write into them.
    Linear in nodes; comparable only within one process.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(sorted(model.opset_imports.items())).encode())
    for scope in scopes(model):
        for line in _lines(scope):
            digest.update(line.encode())
    return digest.hexdigest()


def _lines(scope: Scope) -> Iterator[str]:
    yield f"scope {[_value(v) for v in scope.inputs]} {[_value(v) for v in scope.outputs]}\n"
    if isinstance(scope, Graph):
        for name, value in scope.initializers.items():
            yield f"{name} {_value(value)} {id(value.const_value)}\n"
    for node in scope:
        yield _node(node)


def _node(node: Node) -> str:
    attributes = [_attribute(a) for a in sorted(node.attributes.values(), key=lambda a: a.name)]
    inputs = [v.name if v is not None else None for v in node.inputs]
    outputs = [_value(v) for v in node.outputs]
    return f"{node.domain} {node.op_type} {node.name} {inputs} {outputs} {attributes}\n"


def _attribute(attribute: Attr) -> str:
    if attribute.type in _GRAPHS:
        return attribute.name
    content = id(attribute.value) if attribute.type in _LARGE else attribute.value
    return f"{attribute.name}={content!r}"


def _value(value: Value) -> str:
    return f"{value.name}:{value.type}:{value.shape}"
