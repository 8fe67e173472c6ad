"""The model as a proto without its big weights, for the parts of ONNX that take protos.

ONNX's checker, version converter and shape inference work on serialized protos of at most 2 GB.
While they run, every big initializer of every scope is a graph input of the main graph. Inner
scopes read it from there: names are unique over all scopes (`fix_names`).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import onnx.helper
import onnx_ir
from onnx import ModelProto

from onnxslim.errors import ModelError
from onnxslim.ir.collector import paused
from onnxslim.ir.swap import inside, swapped
from onnxslim.ir.tensors import static_shape
from onnxslim.ir.types import ExternalTensor, Graph, Model, TensorType, Value
from onnxslim.ir.walk import scope_tree

SMALL = 1024
"""Bytes. Initializers up to this size stay inside: axes, shapes, pads, scales are read there."""

PROTO_LIMIT = 2**31 - 1


@dataclass
class Light:
    """A proto without big weights, and whose weights they are: by name, the graph that owns it."""

    proto: ModelProto
    taken: dict[str, Value] = field(default_factory=dict[str, Value])
    owner: dict[str, Graph] = field(default_factory=dict[str, Graph])


@contextmanager
def light_proto(model: Model, limit: int = SMALL) -> Generator[Light, None, None]:
    """The model as a proto whose initializers over `limit` bytes are inputs; the model is intact.

    Raises:
        ModelError: what remains does not fit into a proto (2 GB).
    """
    inner = (graph for graph in scope_tree(model.graph) if isinstance(graph, Graph))
    before = [(graph, list(graph.initializers.values())) for graph in inner]
    count = len(model.graph.inputs)
    light = Light(ModelProto())
    try:
        for graph, initializers in before:
            for value in initializers:
                if _can_leave(value, graph, model.graph, limit):
                    _take_out(light, value, graph, model.graph)
        with swapped(model, inside):  # what is left of external data is small, or in attributes
            light.proto = serialized(model)
    finally:
        while len(model.graph.inputs) > count:
            model.graph.inputs.pop()
        for graph, initializers in before:
            if len(graph.initializers) < len(initializers):
                _put_back(graph, initializers)
    yield light


def _can_leave(value: Value, graph: Graph, main: Graph, limit: int) -> bool:
    tensor = value.const_value
    if tensor is None or not (tensor.nbytes > limit or isinstance(tensor, ExternalTensor)):
        return False
    return graph is main or not value.is_graph_output()


def _take_out(light: Light, value: Value, graph: Graph, main: Graph) -> None:
    name, tensor = value.name, value.const_value
    if name is None or tensor is None:
        return
    del graph.initializers[name]
    light.taken[name] = value
    light.owner[name] = graph
    if value.is_graph_input():
        return
    if value.type is None:
        value.type = TensorType(tensor.dtype)
    if value.shape is None:
        value.shape = static_shape(tensor)
    main.inputs.append(value)


def _put_back(graph: Graph, initializers: list[Value]) -> None:
    """Register them again in their order (`clear` of this mapping would be quadratic)."""
    for name in list(graph.initializers):
        del graph.initializers[name]
    for value in initializers:
        graph.initializers.add(value)


def serialized(model: Model) -> ModelProto:
    """onnx-ir's proto of the model; its long chains of causes become one line."""
    try:
        with paused():
            return onnx_ir.to_proto(model)
    except (onnx_ir.serde.SerdeError, ValueError) as error:
        raise ModelError(f"the model cannot be written as ONNX: {root_cause(error)}") from error


def root_cause(error: BaseException) -> str:
    """The innermost message of a chain of exceptions, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(str(error))


def min_ir_version(opset: int) -> int:
    """The IR version that came with a version of the standard operators."""
    return int(onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)]))


def one_line(text: str, limit: int = 400) -> str:
    """The text with its lines joined, cut at `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
