"""onnx-graphsurgeon graphs in and out, weights by reference.

A `gs.Graph` has no place for metadata, documentation of nodes and values, quantization
annotations or value information of functions; these are lost on the way. What graphsurgeon would
damage instead is refused.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import onnx_ir
from onnx import ModelProto, TensorProto
from onnx.helper import np_dtype_to_tensor_dtype

from onnxslim.errors import ModelError
from onnxslim.ir.io import convert, prepared
from onnxslim.ir.light import SMALL, light_proto, min_ir_version, one_line
from onnxslim.ir.modern import raise_ir_version
from onnxslim.ir.preflight import preflight
from onnxslim.ir.state import snapshot
from onnxslim.ir.swap import exchange, inside
from onnxslim.ir.tensors import location_of, renamed
from onnxslim.ir.types import Attr, AttributeType, ExternalTensor, Model, Tensor, TensorProtocol
from onnxslim.ir.walk import Array, label, nodes

_LOST_ATTRIBUTES = {
    AttributeType.TYPE_PROTO: "a type",
    AttributeType.TYPE_PROTOS: "types",
    AttributeType.TENSORS: "a list of tensors",
    AttributeType.GRAPHS: "a list of graphs",
}

_LISTS = {AttributeType.INTS, AttributeType.FLOATS, AttributeType.STRINGS}

_TEXT = {AttributeType.STRING, AttributeType.STRINGS}

_NUMPY_KINDS = "biufc"
"""Kinds of numpy's own types; graphsurgeon takes no other as an array (bfloat16, int4, ...)."""

_STAND_IN = "onnxslim-weight-"


def to_gs(model: Model) -> Any:
    """The model as a `gs.Graph` that shares its weights (memory-mapped ones stay so).

    Raises:
        ModelError: it holds what a `gs.Graph` cannot.
    """
    import onnx_graphsurgeon as gs

    if problem := next(_obstacles(model), None):
        raise ModelError(f"onnx-graphsurgeon cannot hold this model: {problem}")
    model = snapshot(model)
    raise_ir_version(model, 4)  # graphsurgeon drops inputs that are initializers
    with light_proto(model) as light:
        graph: Any = gs.import_onnx(light.proto)
    weights: dict[str, Any] = {t.name: t for t in graph.inputs if t.name in light.taken}
    for name, variable in weights.items():
        tensor = light.taken[name].const_value
        if tensor is not None:
            variable.to_constant(_gs_values(tensor))
    graph.inputs = [t for t in graph.inputs if t.name not in weights]
    return graph


def _gs_values(tensor: TensorProtocol) -> Any:
    from onnx_graphsurgeon.ir.tensor import LazyValues

    if isinstance(tensor, onnx_ir.serde.TensorProtoTensor):
        return LazyValues(tensor.raw)
    array = tensor.numpy()
    if _is_numpys(array):
        return array
    return LazyValues(onnx_ir.serde.serialize_tensor(inside(tensor)))


def _is_numpys(array: Array) -> bool:
    return array.dtype.kind in _NUMPY_KINDS and array.dtype.type.__module__ == "numpy"


def _obstacles(model: Model) -> Iterator[str]:
    for value in model.graph.inputs:
        if value.is_initializer() and model.ir_version >= 4:
            yield f"the input '{value.name}' has a default value"
    for value in (*model.graph.inputs, *model.graph.outputs):
        if isinstance(value.type, (onnx_ir.OptionalType, onnx_ir.SparseTensorType)):
            yield f"'{value.name}' is {value.type}"
    for function in model.functions.values():
        if function.overload:
            yield f"the function '{function.name}' has overloads"
    for node in nodes(model):
        for attr in node.attributes.values():
            if not attr.is_ref() and (why := _obstacle(attr)):
                yield f"attribute '{attr.name}' of node '{label(node)}' is {why}"


def _obstacle(attr: Attr) -> str | None:
    if attr.type in _LOST_ATTRIBUTES:
        return _LOST_ATTRIBUTES[attr.type]
    if attr.type in _LISTS and not attr.value:
        return "an empty list"
    if attr.type in _TEXT and isinstance(attr.value, bytes):
        return "text that is not UTF-8"
    return None


def from_gs(graph: Any) -> Model:
    """The IR of a `gs.Graph`, sharing its weights. The graph is not changed.

    Raises:
        ModelError: graphsurgeon cannot export it, or what it exports is not a valid model.
    """
    with _stand_ins(graph) as weights:
        proto = _exported(graph)
    model = convert(preflight(proto))
    exchange(model, lambda tensor: _given_back(tensor, weights))
    return prepared(model)


def _exported(graph: Any) -> ModelProto:
    import onnx_graphsurgeon as gs

    domains = graph.import_domains
    try:
        proto: ModelProto = gs.export_onnx(graph)
    except Exception as error:
        raise ModelError(
            f"onnx-graphsurgeon cannot export the graph: {one_line(str(error))}"
        ) from error
    finally:
        graph.import_domains = domains
    if graph.ir_version is None:  # else the newest that onnx knows, which runtimes may not
        proto.ir_version = max(8, min_ir_version(graph.opset))
    return proto


def _given_back(tensor: TensorProtocol, weights: list[TensorProtocol]) -> TensorProtocol:
    if not isinstance(tensor, ExternalTensor):
        return tensor
    location = location_of(tensor)[1]
    if not location.startswith(_STAND_IN):
        raise ModelError(
            f"the weight '{tensor.name}' lies in the external file '{location}'; "
            "load the values first"
        )
    return renamed(weights[int(location[len(_STAND_IN) :])], tensor.name)


@contextmanager
def _stand_ins(graph: Any) -> Generator[list[TensorProtocol], None, None]:
    """Inside, big constants are references to the list; then they are what they were."""
    from onnx_graphsurgeon.ir.tensor import LazyValues

    weights: list[TensorProtocol] = []
    before: dict[int, tuple[Any, Any]] = {}
    try:
        for constant in _constants(graph):
            tensor = None if id(constant) in before else _tensor_of(constant)
            if tensor is None or tensor.nbytes <= SMALL:
                continue
            proto = TensorProto(data_type=tensor.dtype.value, dims=list(tensor.shape.numpy()))
            proto.name = constant.name
            proto.data_location = TensorProto.EXTERNAL
            proto.external_data.add(key="location", value=f"{_STAND_IN}{len(weights)}")
            weights.append(tensor)
            before[id(constant)] = constant, constant._values
            constant._values = LazyValues(proto)
        yield weights
    finally:
        for constant, values in before.values():
            constant._values = values


def _tensor_of(constant: Any) -> TensorProtocol | None:
    """The content of a gs.Constant by reference; None for what export has to convert."""
    values: Any = constant._values
    if isinstance(values, np.ndarray):
        values = cast("Array", values)
        if constant.export_dtype != constant.dtype or not _is_numpys(values):
            return None
        dtype = onnx_ir.DataType(np_dtype_to_tensor_dtype(values.dtype))
        return Tensor(np.asarray(values, order="C"), dtype=dtype, name=constant.name)
    proto = getattr(values, "tensor", None)
    if not isinstance(proto, TensorProto) or proto.data_location == TensorProto.EXTERNAL:
        return None
    return None if proto.data_type == TensorProto.STRING else onnx_ir.serde.TensorProtoTensor(proto)


def _constants(graph: Any) -> Iterator[Any]:
    """Every constant of a gs.Graph, its subgraphs and functions."""
    import onnx_graphsurgeon as gs

    stack = [graph, *graph.functions]
    while stack:
        scope = stack.pop()
        yield from (t for t in scope.outputs if isinstance(t, gs.Constant))
        for node in scope.nodes:
            yield from (t for t in node.inputs if isinstance(t, gs.Constant))
            for attribute in node.attrs.values():
                if isinstance(attribute, gs.Constant):
                    yield attribute
                elif isinstance(attribute, gs.Graph):
                    stack.append(attribute)
