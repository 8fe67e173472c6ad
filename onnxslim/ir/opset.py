"""Raising the opset with ONNX's own converter, at any size: big weights stay out of the proto."""

from __future__ import annotations

import onnx
import onnx.defs
import onnx_ir
from onnx import ModelProto

from onnxslim.errors import EditError, ModelError
from onnxslim.ir.light import Light, light_proto, min_ir_version, one_line
from onnxslim.ir.modern import raise_ir_version
from onnxslim.ir.names import defined, fix_names
from onnxslim.ir.state import assign, snapshot
from onnxslim.ir.types import Function, Graph, Model, Node, Value
from onnxslim.ir.verify import verify
from onnxslim.ir.walk import STANDARD_DOMAINS, label, nodes, op, scope_tree, subgraphs


def opset(model: Model) -> int | None:
    """The version of the standard operators that the model imports; None without them."""
    return model.opset_imports.get("")


def raise_opset(model: Model, version: int) -> None:
    """Convert the model in place to at least this opset; the IR version rises as it must.

    Names, metadata and documentation of what survives are kept. Every Graph, Node and Value taken
    from the model before is stale afterwards, unless the opset was high enough already.

    Raises:
        EditError: the converter cannot do it; the model is as it was.
    """
    current = opset(model)
    if current is not None and current >= version:
        return
    if current is not None and current < 9 and any(op(node) == "Scan" for node in nodes(model)):
        raise EditError(f"opset {current} cannot be raised to {version}: Scan changed in opset 9")
    made = snapshot(model)
    raise_ir_version(made, min_ir_version(version))
    for function in made.functions.values():
        _raise_function(function, version)
    if current is not None:
        _convert(made, version)
    made.graph.opset_imports[""] = version
    try:
        verify(made)
    except ModelError as error:
        raise EditError(f"opset {current} cannot be raised to {version}: {error}") from error
    assign(model, made)


def _raise_function(function: Function, version: int) -> None:
    """Functions are not converted: they may import the new version if it means the same to them."""
    current = function.opset_imports.get("")
    if current is None or current >= version:
        return
    for scope in scope_tree(function):
        for node in scope:
            if node.domain in STANDARD_DOMAINS and not _same_op(node, current, version):
                raise EditError(
                    f"opset {current} cannot be raised to {version}: {node.op_type} "
                    f"('{label(node)}') in function '{function.name}' changed in between"
                )
    function.opset_imports[""] = version


def _same_op(node: Node, old: int, new: int) -> bool:
    try:
        before = onnx.defs.get_schema(node.op_type, old, "")
        after = onnx.defs.get_schema(node.op_type, new, "")
    except onnx.defs.SchemaError:
        return False
    return bool(before.since_version == after.since_version)


def _convert(model: Model, version: int) -> None:
    """Run the converter on the model without its big weights and put the result in its graph."""
    numbered = _numbered(model)
    names = {key: node.name for key, node in numbered.items()}
    for key, node in numbered.items():
        node.name = key
    try:
        with light_proto(model) as light:
            del light.proto.functions[:]
            converted = _run_converter(light.proto, opset(model), version)
    finally:
        for key, node in numbered.items():
            node.name = names[key]
    made = onnx_ir.from_proto(converted)
    _return_weights(made, light, numbered)
    _return_nodes(made, numbered)
    _return_values(made, model)
    made.graph.name, made.graph.doc_string = model.graph.name, model.graph.doc_string
    made.graph.metadata_props.update(model.graph.metadata_props)
    made.graph.opset_imports.clear()
    made.graph.opset_imports.update(model.graph.opset_imports)
    model.graph = made.graph
    fix_names(model)


def _run_converter(proto: ModelProto, current: int | None, version: int) -> ModelProto:
    import onnx.version_converter

    try:
        return onnx.version_converter.convert_version(proto, version)
    except Exception as error:
        raise EditError(
            f"opset {current} cannot be raised to {version}: {one_line(str(error))}"
        ) from error


_KEY = "onnxslim-node-"


def _numbered(model: Model) -> dict[str, Node]:
    """The nodes of the main graph and its subgraphs under names that are surely unique."""
    found = [node for scope in scope_tree(model.graph) for node in scope]
    return {f"{_KEY}{number}": node for number, node in enumerate(found)}


def _return_weights(made: Model, light: Light, numbered: dict[str, Node]) -> None:
    """Turn the inputs that stood for weights into initializers of the graphs that own them."""
    places = {
        (node.name, index): graph
        for scope in scope_tree(made.graph)
        for node in scope
        for index, graph in enumerate(subgraphs(node))
    }
    owners = {
        inner: places.get((key, index), made.graph)
        for key, node in numbered.items()
        for index, inner in enumerate(subgraphs(node))
    }
    inputs = list(made.graph.inputs)
    made.graph.inputs.clear()
    for value in inputs:
        old = light.taken.get(value.name or "")
        if old is None:
            made.graph.inputs.append(value)
            continue
        value.const_value = old.const_value
        owner = owners.get(light.owner[value.name or ""], made.graph)
        if old.is_graph_input():
            made.graph.inputs.append(value)
        owner.initializers.add(value)


def _return_nodes(made: Model, numbered: dict[str, Node]) -> None:
    """Names, documentation and metadata of the nodes that went through."""
    for scope in scope_tree(made.graph):
        for node in scope:
            old = numbered.get(node.name or "")
            if old is None:
                continue
            node.name = old.name
            node.doc_string = old.doc_string
            node.metadata_props.update(old.metadata_props)
            node.meta.update(old.meta)
            node.overload = old.overload


def _return_values(made: Model, model: Model) -> None:
    """Types, shapes and metadata of the values that kept their names."""
    before = _by_name(model.graph)
    for name, value in _by_name(made.graph).items():
        old = before.get(name)
        if old is None:
            continue
        if old.type is not None:
            value.type, value.shape = old.type, old.shape
        if value.is_initializer() and old.is_initializer():
            value.const_value = old.const_value
        value.doc_string = old.doc_string
        value.metadata_props.update(old.metadata_props)
        value.meta.update(old.meta)


def _by_name(graph: Graph) -> dict[str, Value]:
    return {
        value.name: value for scope in scope_tree(graph) for value in defined(scope) if value.name
    }
