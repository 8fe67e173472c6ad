"""Reading a model: every scope and node of it, and what constant a value has. Nothing recursive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from onnxslim.ir.types import (
    Attr,
    AttributeType,
    Graph,
    Model,
    Node,
    Scope,
    Tensor,
    TensorProtocol,
    Value,
)

Array = npt.NDArray[Any]

_GRAPHS = (AttributeType.GRAPH, AttributeType.GRAPHS)  # no set: hashing an enum takes its time

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


def subgraphs(node: Node) -> Iterator[Graph]:
    """The graphs held by the attributes of one node."""
    for attr in node.attributes.data.values():  # of the dict itself: five times as fast
        if attr.type in _GRAPHS:
            yield from _graphs_of(attr)


def _graphs_of(attr: Attr) -> Sequence[Graph]:
    if attr.is_ref():
        return ()
    return (attr.as_graph(),) if attr.type == AttributeType.GRAPH else attr.as_graphs()


def scope_tree(root: Scope) -> Iterator[Scope]:
    """A scope and all that it holds, outer before inner."""
    stack: list[Scope] = [root]
    while stack:
        scope = stack.pop()
        yield scope
        attrs = (attr for node in scope for attr in node.attributes.data.values())
        inner = [graph for attr in attrs if attr.type in _GRAPHS for graph in _graphs_of(attr)]
        stack.extend(reversed(inner))


def scope_trees(model: Model) -> Iterator[Iterator[Scope]]:
    """The scopes of the main graph, then those of each function: each is one space of names."""
    yield scope_tree(model.graph)
    for function in model.functions.values():
        yield scope_tree(function)


def scopes(model: Model) -> Iterator[Scope]:
    """Every scope of the model: outer before inner, the main graph first, functions last."""
    for tree in scope_trees(model):
        yield from tree


def nodes(model: Model) -> Iterator[Node]:
    """Every node of every scope."""
    for scope in scopes(model):
        yield from scope


def op(node: Node) -> str:
    """The operator as `Conv`, or `domain::Conv` outside of the standard domain."""
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}::{node.op_type}"


def label(node: Node) -> str:
    """What messages and reports call a node: its name, or its first output when it has none."""
    if node.name:
        return node.name
    outputs = [value.name for value in node.outputs if value.name]
    return outputs[0] if outputs else f"a nameless {op(node)}"


def attribute(node: Node, name: str, default: Any = None) -> Any:
    """The plain Python value of an attribute, or the default when the node does not have it."""
    attr = node.attributes.get(name)
    return default if attr is None or attr.is_ref() else attr.value


LISTED_INPUT = "onnxslim.listed_input"
"""Mark in `Value.meta`: an input only because IR version 3 lists every initializer as one."""


def is_fixed(value: Value) -> bool:
    """Whether the value is an initializer that no caller can override with a graph input."""
    if not value.is_initializer():
        return False
    return not value.is_graph_input() or LISTED_INPUT in value.meta


def constant(value: Value | None) -> TensorProtocol | None:
    """The tensor that a value always holds, seen through Constant nodes and Identity chains.

    None for what can vary: a graph input that an initializer only defaults, a computed value,
    an absent optional input.
    """
    while value is not None:
        producer = value.producer()
        if producer is None:
            return value.const_value if is_fixed(value) else None
        if op(producer) == "Constant":
            return constant_of(producer)
        if op(producer) != "Identity":
            return None
        value = producer.inputs[0]
    return None


def tensor_of(attr: Attr) -> TensorProtocol:
    """The value of a TENSOR attribute; `as_tensor` reads all its properties to tell that it is."""
    return cast("TensorProtocol", attr.value)


_SCALAR_ATTRIBUTES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def constant_of(node: Node) -> TensorProtocol | None:
    """The tensor of a Constant node; None for strings, sparse values and reference attributes."""
    if (attr := node.attributes.get("value")) is not None:
        tensor: TensorProtocol | None = None if attr.is_ref() else attr.value
        return tensor  # `as_tensor` checks the class at 35 microseconds a call
    for name, dtype in _SCALAR_ATTRIBUTES.items():
        attr = node.attributes.get(name)
        if attr is not None and not attr.is_ref():
            return Tensor(np.asarray(attr.value, dtype=dtype), name=node.outputs[0].name)
    return None


def array(value: Value | None) -> Array | None:
    """Like `constant`, as a numpy array (read; memory-mapped where the weight is external)."""
    tensor = constant(value)
    return None if tensor is None else tensor.numpy()


def graph_of(value: Value) -> Scope | None:
    """The scope that a value belongs to."""
    producer = value.producer()
    return producer.graph if producer is not None else value.graph


def weight_bytes(model: Model) -> int:
    """The bytes of all initializers and tensor attributes; each tensor counted once."""
    return sum({id(tensor): tensor.nbytes for tensor in tensors(model)}.values())


def tensors(model: Model) -> Iterator[TensorProtocol]:
    """Every tensor that the model holds: initializers and tensor attributes of all scopes."""
    for scope in scopes(model):
        if isinstance(scope, Graph):
            yield from (t for v in scope.initializers.values() if (t := v.const_value) is not None)
        for node in scope:
            for attr in node.attributes.data.values():
                if attr.type == AttributeType.TENSOR and not attr.is_ref():
                    yield tensor_of(attr)
                elif attr.type == AttributeType.TENSORS and not attr.is_ref():
                    yield from attr.as_tensors()
