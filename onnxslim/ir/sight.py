"""Which scope sees which: the tree of graphs of a model, kept up to date by the editor."""

from __future__ import annotations

from collections.abc import Iterable

from onnxslim.errors import EditError
from onnxslim.ir.types import Function, Graph, Model, Node, Scope, Value
from onnxslim.ir.walk import label, scope_tree, scopes, subgraphs


def graph_behind(scope: Scope) -> Graph:
    """The Graph object that nodes of the scope belong to; a function has one underneath."""
    return scope.graph if isinstance(scope, Function) else scope


class Sight:
    """The node that holds each subgraph, and the functions by their underlying graph."""

    def __init__(self, model: Model) -> None:
        self._holder: dict[Graph, Node] = {}
        self._roots: dict[Graph, Scope] = {model.graph: model.graph}
        for function in model.functions.values():
            self._roots[function.graph] = function
        for scope in scopes(model):
            for node in scope:
                self.enter(node)

    def enter(self, node: Node) -> None:
        """A node was added: its own subgraphs are part of the tree now."""
        for graph in subgraphs(node):
            self._holder[graph] = node

    def enter_all(self, node: Node) -> None:
        """A node was added: all subgraphs below it are part of the tree now."""
        for graph in subgraphs(node):
            for scope in scope_tree(graph):
                for inner in scope:
                    self.enter(inner)
        self.enter(node)

    def scope_of(self, thing: Node | Value) -> Scope:
        """The scope of a node or value of the model, a Function rather than the graph under it.

        Raises:
            EditError: it is not part of the model.
        """
        graph = thing.graph
        if graph is not None and graph in self._roots:
            return self._roots[graph]
        if graph is None or graph not in self._holder:
            name = label(thing) if isinstance(thing, Node) else thing.name
            raise EditError(f"'{name}' is not part of the model")
        return graph

    def is_function(self, scope: Scope) -> bool:
        """Whether the scope is a function (or its underlying graph), without initializers."""
        return isinstance(self._roots.get(graph_behind(scope)), Function)

    def sees(self, reader: Graph, home: Graph) -> bool:
        """Whether nodes of one graph can read values of the other: the same or an outer one."""
        graph: Graph | None = reader
        while graph is not None and graph is not home:
            holder = self._holder.get(graph)
            graph = holder.graph if holder is not None else None
        return graph is home

    def check_reads(self, nodes: Iterable[Node], graph: Graph) -> None:
        """Refuse nodes that would read what their new place cannot see.

        Raises:
            EditError: a node is in a graph already, or reads an invisible value.
        """
        made: set[Value] = set()
        for node in nodes:
            if node.graph is not None:
                raise EditError(f"node '{label(node)}' is in a graph already")
            for value in node.inputs:
                if value is not None and value not in made:
                    self.check_value(value, graph, node)
            made.update(node.outputs)

    def check_value(self, value: Value, graph: Graph, reader: Node) -> None:
        """Refuse a reader in a graph that does not see the value.

        Raises:
            EditError: it does not.
        """
        home = value.graph
        if home is None:
            raise EditError(f"'{value.name}', read by '{label(reader)}', belongs to no graph")
        if not self.sees(graph, home):
            raise EditError(f"'{value.name}' cannot be seen by '{label(reader)}'")
