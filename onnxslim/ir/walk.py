"""Reading a model: every scope and node of it, and what constant a value has. Nothing recursive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxslim.ir.types import Attr, AttributeType, Function, Graph, Model, Node, Scope, Value
from onnxslim.ir.types import Tensor, TensorProtocol

Array = npt.NDArray[Any]

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


def subgraphs(node: Node) -> Iterator[Graph]:
    """The graphs held by the attributes of one node."""
    for attr in node.attributes.values():
        if not isinstance(attr, Attr):
            continue
        if attr.type == AttributeType.GRAPH:
            yield attr.as_graph()
        elif attr.type == AttributeType.GRAPHS:
            yield from attr.as_graphs()


def scopes(model: Model) -> Iterator[Scope]:
    """Every scope of the model: outer before inner, the main graph first, functions last."""
    stack: list[Scope] = [*reversed(list(model.functions.values())), model.graph]
    while stack:
        scope = stack.pop()
        yield scope
        inner = [g for node in scope if node.attributes for g in subgraphs(node)]
        stack.extend(reversed(inner))


def nodes(model: Model) -> Iterator[Node]:
    """Every node of every scope."""
    for scope in scopes(model):
        yield from scope


def op(node: Node) -> str:
    """The operator as `Conv`, or `domain::Conv` outside of the standard domain."""
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}::{node.op_type}"


def attribute(node: Node, name: str, default: Any = None) -> Any:
    """The plain Python value of an attribute, or the default when the node does not have it."""
    attr = node.attributes.get(name)
    return default if attr is None or attr.is_ref() else attr.value


def constant(value: Value | None) -> TensorProtocol | None:
    """The tensor that a value always holds, seen through Constant nodes and Identity chains.

    None for what can vary: a graph input that an initializer only defaults, a computed value,
    an absent optional input.
    """
    while value is not None:
        producer = value.producer()
        if producer is None:
            overridable = value.is_graph_input()
            return None if overridable or not value.is_initializer() else value.const_value
        if op(producer) == "Constant":
            return constant_of(producer)
        if op(producer) != "Identity":
            return None
        value = producer.inputs[0]
    return None


_SCALAR_ATTRIBUTES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def constant_of(node: Node) -> TensorProtocol | None:
    """The tensor of a Constant node; None for strings, sparse values and reference attributes."""
    if (attr := node.attributes.get("value")) is not None:
        return None if attr.is_ref() else attr.as_tensor()
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
    """The bytes of all initializers and Constant nodes; each tensor counted once."""
    seen: dict[int, int] = {}
    for scope in scopes(model):
        if isinstance(scope, Graph):
            for value in scope.initializers.values():
                if (tensor := value.const_value) is not None:
                    seen[id(tensor)] = tensor.nbytes
        for node in scope:
            if node.op_type == "Constant" and (tensor := constant_of(node)) is not None:
                seen[id(node)] = tensor.nbytes
    return sum(seen.values())


def is_function(scope: Scope) -> bool:
    """Whether the scope is a model-local function (which cannot hold initializers)."""
    return isinstance(scope, Function)
