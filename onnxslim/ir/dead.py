"""Taking nodes out, with everything inside them, and finding those that nothing depends on."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

from onnxslim.errors import EditError
from onnxslim.ir.types import Graph, Model, Node
from onnxslim.ir.walk import scope_tree, scopes, subgraphs


def remove(graph: Graph, node: Node, keep: Iterable[Node] = ()) -> None:
    """Take a node out of its graph; neither it nor its subgraphs read anything afterwards.

    Subgraphs that the nodes of `keep` hold too go on reading.
    """
    graph.remove(node)
    kept = {id(inner) for other in keep for inner in subgraphs(other)}
    _unread(_below(node, kept))


@contextmanager
def released_when_refused(nodes: Sequence[Node]) -> Generator[None, None, None]:
    """If what is inside is refused, nodes that are in no graph read nothing any more.

    A node counts as a reader of its inputs from the moment it is made. One that stays outside
    would keep what it reads alive, and shared.
    """
    try:
        yield
    except EditError:
        release(nodes)
        raise


def release(nodes: Iterable[Node]) -> None:
    """Let nodes that are in no graph read nothing."""
    for node in nodes:
        if node.graph is None:
            _unread(_below(node, set()))


def _unread(nodes: Iterable[Node]) -> None:
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if value is not None:
                node.replace_input_with(index, None)


def _below(node: Node, kept: set[int]) -> list[Node]:
    found = [node]
    for graph in subgraphs(node):
        if id(graph) not in kept:
            found.extend(inner for scope in scope_tree(graph) for inner in scope)
    return found


def remove_all(model: Model) -> int:
    """Remove nodes whose outputs nothing reads, then initializers; returns how many of both.

    Nodes without any output stay: what they are for is not seen in the graph. Linear.
    """
    dead_ones = [node for scope in scopes(model) for node in scope if _is_dead(node)]
    count, _ = _remove_upwards(dead_ones)
    return count + sum(
        _remove_initializers(scope) for scope in scopes(model) if isinstance(scope, Graph)
    )


def remove_from(nodes: Iterable[Node]) -> list[Node]:
    """Remove those of the nodes that nothing reads, and what is dead without them.

    Returns the nodes that stay and have lost a reader.
    """
    chosen = dict.fromkeys(n for n in nodes if n.graph is not None and _is_dead(n))
    _, above = _remove_upwards(list(chosen))
    return [node for node in above if node.graph is not None]


def _remove_upwards(todo: list[Node]) -> tuple[int, list[Node]]:
    """How many were removed, and what computed the values that they read."""
    count = 0
    above: dict[Node, None] = {}
    while todo:
        node = todo.pop()
        graph = node.graph
        if graph is None or not _is_dead(node):
            continue
        inner = _below(node, set())
        values = dict.fromkeys(value for n in inner for value in n.inputs)
        remove(graph, node)
        count += 1
        read = [p for v in values if v is not None and (p := v.producer()) is not None]
        above.update(dict.fromkeys(read))
        todo.extend(n for n in read if n.graph is not None and _is_dead(n))
    return count, list(above)


def _is_dead(node: Node) -> bool:
    return bool(node.outputs) and not any(
        value.uses() or value.is_graph_output() for value in node.outputs
    )


def _remove_initializers(graph: Graph) -> int:
    unused = [
        name
        for name, value in graph.initializers.items()
        if not (value.uses() or value.is_graph_input() or value.is_graph_output())
    ]
    for name in unused:
        del graph.initializers[name]
    return len(unused)
