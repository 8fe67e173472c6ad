"""What onnx-ir would lose or cannot hold, seen on the proto before it gets there.

Sparse initializers become dense ones up to a size; everything else is refused with its name:
map types, SPARSE_TENSOR attributes, training_info, one domain imported in two versions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TypeProto,
)
from onnx import numpy_helper as convert

from onnxslim.errors import ModelError

DENSE_LIMIT = 256 * 1024 * 1024
"""Bytes. A sparse initializer that is larger when dense is refused."""

CHECK_LIMIT = 256 * 1024 * 1024
"""Bytes. Larger protos are checked without their big weights."""

_SPARSE = frozenset({AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS})
_SPECIAL = _SPARSE | {AttributeProto.GRAPH, AttributeProto.GRAPHS}


def preflight(proto: ModelProto) -> ModelProto:
    """The proto, or a copy in which sparse initializers are dense. The given one is not changed.

    Raises:
        ModelError: something that the IR cannot hold, named.
    """
    _check_shell(proto)
    sparse = False
    for graph, where in _scopes(proto):
        if graph is not None:
            _check_types(graph, where)
            sparse = sparse or len(graph.sparse_initializer) > 0
    return _dense(proto) if sparse else proto


def is_small(proto: ModelProto) -> bool:
    """Whether ONNX's checker can read the proto as it is, if it has all its data inside."""
    try:
        return bool(proto.ByteSize() <= CHECK_LIMIT)
    except EncodeError:  # over 2 GB
        return False


def _check_shell(proto: ModelProto) -> None:
    if not proto.HasField("graph"):
        raise ModelError("not an ONNX model: it holds no graph")
    if proto.training_info:
        raise ModelError(
            "the model holds training_info, which would be lost; export it for inference"
        )
    versions: dict[str, int] = {}
    for opset in proto.opset_import:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        if versions.setdefault(domain, opset.version) != opset.version:
            raise ModelError(
                f"the model imports the domain '{domain or 'ai.onnx'}' in two versions, "
                f"{versions[domain]} and {opset.version}; expected one"
            )


def _scopes(proto: ModelProto) -> Iterator[tuple[GraphProto | None, str]]:
    """Every graph and function (None) and where it is; refuses sparse attributes on the way.

    Each attribute is looked at once: that takes as long as anything else in loading.
    """
    stack: list[GraphProto | FunctionProto] = [proto.graph, *proto.functions]
    while stack:
        scope = stack.pop()
        graph = scope if isinstance(scope, GraphProto) else None
        where = f"{'function' if graph is None else 'graph'} '{scope.name}'"
        yield graph, where
        for node in scope.node:
            for attribute in node.attribute:
                if attribute.type not in _SPECIAL:
                    continue
                if attribute.type in _SPARSE:
                    raise _sparse_attribute(attribute, node, where)
                stack.extend(attribute.graphs)
                if attribute.type == AttributeProto.GRAPH:
                    stack.append(attribute.g)


def _sparse_attribute(attribute: AttributeProto, node: NodeProto, where: str) -> ModelError:
    return ModelError(
        f"attribute '{attribute.name}' of node '{node.name or node.output[0]}' "
        f"({node.op_type}, {where}) is a sparse tensor, which is not supported; "
        "make it a dense one"
    )


def _check_types(graph: GraphProto, where: str) -> None:
    for group in (graph.input, graph.output, graph.value_info):
        for info in group:
            if _has_map(info.type):
                raise ModelError(
                    f"'{info.name}' in {where} is a map, which is not supported; "
                    "remove the ZipMap or DictVectorizer around the model"
                )


def _has_map(type_proto: TypeProto) -> bool:
    while True:
        kind = type_proto.WhichOneof("value")
        if kind == "sequence_type":
            type_proto = type_proto.sequence_type.elem_type
        elif kind == "optional_type":
            type_proto = type_proto.optional_type.elem_type
        else:
            return bool(kind == "map_type")


def _dense(proto: ModelProto) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(proto)
    for graph, where in _scopes(made):
        if graph is None:
            continue
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_densified(sparse, where))
        del graph.sparse_initializer[:]
    return made


def _densified(sparse: onnx.SparseTensorProto, where: str) -> onnx.TensorProto:
    """A dense tensor; indices are linear ones [n] or coordinates [n, rank] (ONNX IR spec)."""
    name, dims = sparse.values.name, tuple(sparse.dims)
    values, indices = convert.to_array(sparse.values), convert.to_array(sparse.indices)
    size = int(np.prod(dims, dtype=np.int64)) * values.itemsize
    if size > DENSE_LIMIT:
        raise ModelError(
            f"sparse initializer '{name}' in {where} would take {size / 2**20:.0f} MB as a dense "
            f"one; at most {DENSE_LIMIT / 2**20:.0f} MB are made dense"
        )
    dense = np.zeros(dims, dtype=values.dtype)
    try:
        if indices.ndim == 2:
            dense[tuple(indices[:, axis] for axis in range(len(dims)))] = values
        else:
            dense.reshape(-1)[indices] = values
    except (IndexError, ValueError) as error:
        raise ModelError(f"sparse initializer '{name}' in {where} is invalid: {error}") from error
    return convert.from_array(dense, name)
