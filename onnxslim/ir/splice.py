"""Small steps of edits: redirecting readers, taking over an output, the front of a scope."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnxslim.errors import EditError
from onnxslim.ir.tensors import rename
from onnxslim.ir.types import Graph, Node, Value
from onnxslim.ir.walk import op

Use = tuple[Node, int]
"""A place where a value is read: the node and the index of its input."""


def redirect(uses: Iterable[Use], value: Value) -> None:
    """Let each use read the value."""
    for node, index in uses:
        node.replace_input_with(index, value)


def take_over(graph: Graph, old: Value, new: Value, is_fresh: bool) -> None:
    """Let all read the new value; a fresh one inherits what the old one was, its name too."""
    redirect([(use.node, use.idx) for use in old.uses()], new)
    if not is_fresh:
        return
    name, old.name = old.name, None
    if old.is_graph_output():
        for index, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[index] = new
    if name:
        rename(new, name)
    new.type, new.shape = old.type, old.shape
    new.doc_string = old.doc_string or new.doc_string
    new.metadata_props.update(old.metadata_props)
    new.meta.update(old.meta)


def check_can_be_output(value: Value, output: Value, graph: Graph) -> None:
    """Refuse a value that cannot become a graph output under the output's name.

    Raises:
        EditError: it has a name to keep, or lives elsewhere, or the node that goes away makes it.
    """
    what = f"'{output.name}' is a graph output, and '{value.name}'"
    producer = value.producer()
    if producer is None or value.is_graph_input() or value.is_initializer():
        raise EditError(f"{what} is an input or constant that keeps its name")
    if producer.graph is not graph:
        raise EditError(f"{what} is computed in another graph")
    if producer is output.producer():
        raise EditError(f"{what} is made by the node that goes away")
    if value.is_graph_output():
        raise EditError(f"{what} is one too, under its own name")


class Front:
    """The place before all that computes. In a function it is behind the Constant nodes there."""

    def __init__(self) -> None:
        self._last: dict[Graph, Node] = {}

    def add_constant(self, graph: Graph, node: Node) -> None:
        """Put a Constant node behind the others at the front."""
        self.add(graph, (node,))
        self._last[graph] = node

    def add(self, graph: Graph, nodes: Sequence[Node]) -> None:
        """Put nodes before all that computes."""
        last = self._last_constant(graph)
        if last is not None:
            graph.insert_after(last, nodes)
        elif len(graph):
            graph.insert_before(graph[0], nodes)
        else:
            graph.extend(nodes)

    def _last_constant(self, graph: Graph) -> Node | None:
        last = self._last.get(graph)
        if last is not None and last.graph is graph:
            return last
        last = None
        for node in graph:
            if op(node) != "Constant":
                break
            last = node
        return last
