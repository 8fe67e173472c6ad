"""Snapshots of a model: cheap copies that share the weights."""

from __future__ import annotations

from copy import copy

from onnx_ir import TypeProtocol

from onnxslim.ir.collector import paused
from onnxslim.ir.names import defined
from onnxslim.ir.types import Model, TensorType
from onnxslim.ir.walk import scopes


def snapshot(model: Model) -> Model:
    """A copy whose graphs, nodes and values are its own and whose weights are shared.

    Edits of either never show in the other. Linear in nodes, constant in weights.
    """
    with paused():
        twin = model.clone()
        for scope in scopes(twin):
            for value in defined(scope):
                value.type = _own(value.type)  # `Value.dtype = ...` changes it in place
    twin.meta.update(model.meta)
    return twin


def _own(kind: TypeProtocol | None) -> TypeProtocol | None:
    if type(kind) is TensorType:  # nearly always; `copy` takes ten times as long
        return TensorType(kind.dtype, denotation=kind.denotation)
    return copy(kind)


def restore(model: Model, state: Model) -> None:
    """Make the model in place what the snapshot holds; the snapshot can be used again.

    Every Graph, Node and Value taken from the model before is stale afterwards.
    """
    assign(model, snapshot(state))


def assign(model: Model, content: Model) -> None:
    """Move the content of one model into another, which keeps its identity."""
    model.graph = content.graph
    model.functions.clear()
    model.functions.update(content.functions)
    model.ir_version = content.ir_version
    model.producer_name = content.producer_name
    model.producer_version = content.producer_version
    model.domain = content.domain
    model.model_version = content.model_version
    model.doc_string = content.doc_string
    model.device_configurations = content.device_configurations
    model.metadata_props.clear()
    model.metadata_props.update(content.metadata_props)
    model.meta.clear()
    model.meta.update(content.meta)
