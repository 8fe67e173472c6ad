"""Putting computed results into the model in the place of the nodes that computed them."""

from __future__ import annotations

from collections.abc import Mapping

from onnxslim import ir
from onnxslim.ir import Array, Attr, AttributeType, Editor, Model, Node, Value
from onnxslim.passes.fold.region import Region


def place(editor: Editor, region: Region, results: Mapping[Value, Array]) -> int:
    """Let everything outside of the region read constants with the old names; how many.

    A graph output keeps its node as a Constant, whose output it is.
    """
    made: list[tuple[Value, Value]] = []
    for value, array in results.items():
        if uses := region.outside(value):
            hint = str(value.name)
            constant = editor.initializer(editor.scope_of(value), hint, array)
            editor.rewire(uses, constant)
            made.append((constant, value))
    kept = [value.producer() for value in results if value.is_graph_output()]
    todo = [node for node in dict.fromkeys(kept) if node is not None]
    editor.remove_dead()
    while todo:  # the other results of the last of them have no reader, then those of the next
        later = [node for node in todo if _is_read_beside(node)]
        for node in todo:
            if node not in later:
                _keep_as_outputs(editor, node, results)
        editor.remove_dead()
        todo = later
    for constant, value in made:
        if value.graph is None:
            editor.take_name(constant, value)
    return len(results)


def _is_read_beside(node: Node) -> bool:
    """Whether a result that is no graph output still has readers: they go when theirs do."""
    return any(value.uses() for value in node.outputs if not value.is_graph_output())


def _keep_as_outputs(editor: Editor, node: Node, results: Mapping[Value, Array]) -> None:
    constants: list[Node] = []
    outputs: list[Value | None] = []
    for value in node.outputs:
        if value.is_graph_output():
            constants.append(constant_node(editor, str(value.name), results[value], node))
            outputs.append(constants[-1].outputs[0])
        else:
            outputs.append(None)
    editor.replace_node(node, constants, outputs)


def constant_node(editor: Editor, hint: str, array: Array, like: Node) -> Node:
    """A Constant node that is not in the graph yet."""
    tensor = ir.make_tensor(array, hint)
    attribute = Attr("value", AttributeType.TENSOR, tensor)
    node = editor.node("Constant", (), outputs=[hint], like=like)
    node.attributes.add(attribute)
    return node


def constants_to_initializers(editor: Editor, model: Model) -> int:
    """Constant -> initializer, in graphs; how many. The value keeps its name.

    Constants in functions stay, which have no initializers, and so do graph outputs, texts in
    other attributes than `value`, and sparse values.
    """
    count = 0
    for scope in ir.scope_tree(model.graph):
        for node in list(scope):
            if ir.op(node) == "Constant" and not node.outputs[0].is_graph_output():
                count += _to_initializer(editor, node)
    return count


def _to_initializer(editor: Editor, node: Node) -> int:
    value, tensor = node.outputs[0], ir.constant_of(node)
    if tensor is None:
        return 0
    constant = editor.initializer(editor.scope_of(node), str(value.name), tensor)
    constant.metadata_props.update(value.metadata_props)
    editor.replace_node(node, (), [constant])
    editor.take_name(constant, value)
    return 1


def scalars_for_range(editor: Editor, model: Model) -> int:
    """Range(constant [1]) -> Range(scalar); how many inputs.

    Range takes scalars only. Runtimes let one number of another shape pass as long as they cannot
    see the shape, which folding shows them.
    """
    count = 0
    for node in ir.nodes(model):
        if ir.op(node) != "Range":
            continue
        for index, value in enumerate(node.inputs):
            array = ir.array(value)
            if value is not None and array is not None and array.ndim and array.size == 1:
                scope, hint = editor.scope_of(node), str(value.name)
                editor.rewire([(node, index)], editor.initializer(scope, hint, array.reshape(())))
                count += 1
    return count
