"""What ONNX's own shape inference knows of a model, whatever the size of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx.shape_inference
from onnx import GraphProto, ModelProto, TypeProto, ValueInfoProto

from onnxslim.errors import ModelError
from onnxslim.ir.light import light_proto
from onnxslim.ir.types import DataType, Model


@dataclass(frozen=True)
class Inferred:
    """The element type and shape of a tensor. Unknown dimensions are names or None."""

    dtype: DataType | None
    shape: tuple[int | str | None, ...] | None


def infer_types(model: Model, data_propagation: bool = True) -> Mapping[str, Inferred]:
    """Name -> type of every tensor in every graph of the model that inference can tell.

    What the model itself claims of inner values is left out of account; its inputs count. Weights
    are known by type, the contents of small ones too. A model that inference rejects has no entry.
    Cost: one serialization without the big weights.
    """
    try:
        with light_proto(model) as light:
            proto = light.proto
        del proto.graph.value_info[:]
        for output in proto.graph.output:
            if output.type.HasField("tensor_type"):
                output.type.tensor_type.ClearField("shape")
        if data_propagation:
            _spare_floats(proto)
        return _types(onnx.shape_inference.infer_shapes(proto, data_prop=data_propagation))
    except (onnx.shape_inference.InferenceError, ModelError, ValueError, RuntimeError):
        return {}


def _spare_floats(proto: ModelProto) -> None:
    """Add, Sub, Mul -> Div, which has the same shape, where no shape can be the result.

    Data propagation keeps the contents of a vector element by element, of floats too, in 140
    bytes each (onnx 1.23); what it knows of Div is the shape only.
    """
    known = _types(onnx.shape_inference.infer_shapes(proto))
    for graph in _graphs(proto.graph):
        for node in graph.node:
            result = known.get(node.output[0]) if node.op_type in _PROPAGATED else None
            if result is not None and result.dtype not in _INTEGERS:
                node.op_type = "Div"


_PROPAGATED = frozenset({"Add", "Sub", "Mul"})
_INTEGERS = frozenset({DataType.INT32, DataType.INT64, None})


def _types(proto: ModelProto) -> dict[str, Inferred]:
    return {
        info.name: read_type(info.type)
        for graph in _graphs(proto.graph)
        for info in _infos(graph)
        if info.type.WhichOneof("value") == "tensor_type"
    }


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    stack = [graph]
    while stack:
        graph = stack.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                stack.extend(attribute.graphs)
                if attribute.HasField("g"):
                    stack.append(attribute.g)


def _infos(graph: GraphProto) -> Iterator[ValueInfoProto]:
    yield from graph.input
    yield from graph.value_info
    yield from graph.output


def read_type(kind: TypeProto) -> Inferred:
    """The type of a tensor as ONNX writes it."""
    tensor: Any = kind.tensor_type
    dtype = DataType(tensor.elem_type) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return Inferred(dtype, None)
    return Inferred(dtype, tuple(_dimension(d) for d in tensor.shape.dim))


def _dimension(dim: Any) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or None
