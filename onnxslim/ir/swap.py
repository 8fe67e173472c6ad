"""Other tensors in the place of a model's own, for as long as it is being serialized."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from onnxslim.ir.tensors import view
from onnxslim.ir.types import (
    Attr,
    AttributeType,
    ExternalTensor,
    Graph,
    Model,
    Node,
    TensorProtocol,
    Value,
)
from onnxslim.ir.walk import scopes, tensor_of

Swap = Callable[[TensorProtocol], TensorProtocol]


@contextmanager
def swapped(model: Model, swap: Swap, *, attributes: bool = True) -> Generator[None, None, None]:
    """Inside, each initializer and, with `attributes`, each TENSOR attribute holds what `swap`
    makes of its tensor."""
    values: list[tuple[Value, TensorProtocol]] = []
    held: list[tuple[Node, Attr]] | None = [] if attributes else None
    try:
        _swap_all(model, swap, values, held)
        yield
    finally:
        for value, tensor in values:
            value.const_value = tensor
        for node, attr in held or ():
            node.attributes[attr.name] = attr


def exchange(model: Model, swap: Swap) -> None:
    """Like `swapped`, for good."""
    _swap_all(model, swap, [], [])


def _swap_all(
    model: Model,
    swap: Swap,
    values: list[tuple[Value, TensorProtocol]],
    attributes: list[tuple[Node, Attr]] | None,
) -> None:
    for scope in scopes(model):
        if isinstance(scope, Graph):
            _swap_initializers(scope, swap, values)
        if attributes is not None:
            for node in scope:
                _swap_attributes(node, swap, attributes)


def _swap_initializers(graph: Graph, swap: Swap, done: list[tuple[Value, TensorProtocol]]) -> None:
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and (other := swap(tensor)) is not tensor:
            done.append((value, tensor))
            value.const_value = other


def _swap_attributes(node: Node, swap: Swap, done: list[tuple[Node, Attr]]) -> None:
    for attr in list(node.attributes.data.values()):
        if attr.type != AttributeType.TENSOR or attr.is_ref():
            continue
        tensor = tensor_of(attr)
        if (other := swap(tensor)) is not tensor:
            done.append((node, attr))
            made = Attr(attr.name, AttributeType.TENSOR, other, doc_string=attr.doc_string)
            node.attributes[attr.name] = made


def inside(tensor: TensorProtocol) -> TensorProtocol:
    """The tensor as one whose data are written into the proto, wherever they lie now."""
    return view(tensor, tensor.name) if isinstance(tensor, ExternalTensor) else tensor
