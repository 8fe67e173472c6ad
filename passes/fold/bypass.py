"""Nodes that give back what they are given, and branches that are always the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnxslim import ir
from onnxslim.errors import EditError
from onnxslim.ir import Editor, Graph, Model, Node, Scope, Value


def remove_copies(editor: Editor, model: Model) -> int:
    """Identity(x) -> x and, where a model is not trained, Dropout(x) -> x; how many.

    One that makes a graph output stays where its input has a name of its own to keep: graph
    inputs, other outputs, constants, values of an outer graph.
    """
    count = 0
    roots: list[Scope] = [model.graph, *model.functions.values()]
    for root in roots:
        version = root.opset_imports.get("", 1)
        for scope in list(ir.scope_tree(root)):
            for node in list(scope):
                if (check := COPIES.get(ir.op(node))) is not None and check(node, version):
                    count += _bypass(editor, node)
    return count


def _identity(node: Node, version: int) -> bool:
    return True


def _dropout_at_rest(node: Node, version: int) -> bool:
    """Whether a Dropout drops nothing and its mask is not read (ONNX Dropout 1, 7 and 12)."""
    if any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:]):
        return False
    if version < 7:
        return bool(ir.attribute(node, "is_test", 0))
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is None:
        return True
    mode = ir.array(training)
    return mode is not None and not mode.any()


COPIES: Mapping[str, Callable[[Node, int], bool]] = {
    "Identity": _identity,
    "Dropout": _dropout_at_rest,
}


def _bypass(editor: Editor, node: Node) -> int:
    if node.inputs[0] is None:
        return 0
    try:
        editor.bypass(node, node.inputs[0])
    except EditError:  # its output is a graph output, and its input has a name to keep
        return 0
    return 1


def inline_branches(editor: Editor, model: Model) -> int:
    """If(true) { a } else { b } -> a; how many. What only the other branch reads becomes dead."""
    count = 0
    for scope in list(ir.scope_tree(model.graph)):
        for node in list(scope):
            if ir.op(node) == "If" and (condition := ir.array(node.inputs[0])) is not None:
                branch = "then_branch" if bool(condition.all()) else "else_branch"
                graph = node.attributes[branch].as_graph()
                inline(editor, node, graph, list(graph.outputs))
                count += 1
    return count


def inline(
    editor: Editor,
    node: Node,
    branch: Graph,
    results: Sequence[Value | None],
    extra: Sequence[Node] = (),
) -> None:
    """Move the nodes of a subgraph, which reads none of its own inputs, to the place of its node.

    `results` stand for the outputs of the node; `extra` are new nodes behind those of the graph.
    Its initializers go to the outer scope.
    """
    moved = {value: _moved(editor, node, value) for value in branch.initializers.values()}
    nodes, outputs = list(branch), [v if v is None else moved.get(v, v) for v in results]
    branch.outputs.clear()
    branch.remove(nodes)
    nodes.extend(extra)
    made = {value for inner in nodes for value in inner.outputs}
    for index, value in enumerate(outputs):
        if value not in made or value in outputs[:index]:  # one that has another name already
            copy = editor.node("Identity", [value], outputs=[str(node.outputs[index].name)])
            nodes.append(copy)
            outputs[index] = copy.outputs[0]
    editor.replace_node(node, nodes, outputs)
    branch.initializers.clear()
    for value, outer in moved.items():
        editor.take_name(outer, value)


def _moved(editor: Editor, node: Node, value: Value) -> Value:
    assert value.const_value is not None
    outer = editor.initializer(editor.scope_of(node), str(value.name), value.const_value)
    editor.rewire([(use.node, use.idx) for use in value.uses()], outer)
    return outer
