"""Names that are unique over all scopes, which ONNX, the runtimes and our tables by name need."""

from __future__ import annotations

from collections.abc import Iterator

from onnxslim.ir.tensors import rename
from onnxslim.ir.types import Graph, Model, Node, Scope, Value
from onnxslim.ir.walk import scope_trees


class Names:
    """Hands out names that nothing has yet; constant time each, also for the same hint."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._numbers: dict[str, int] = {}

    def new(self, hint: str) -> str:
        """The hint itself, or the hint with the first free number."""
        name, number = hint, self._numbers.get(hint, 0)
        while name in self._taken:
            number += 1
            name = f"{hint}_{number}"
        self._numbers[hint] = number
        self._taken.add(name)
        return name


def defined(scope: Scope) -> Iterator[Value]:
    """The values that a scope defines: inputs, initializers (each once) and node outputs."""
    yield from scope.inputs
    if isinstance(scope, Graph):
        yield from (v for v in scope.initializers.values() if not v.is_graph_input())
    for node in scope:
        yield from node.outputs


def all_names(model: Model) -> set[str]:
    """Every name of a value or node, in any scope."""
    names: set[str] = set()
    for tree in scope_trees(model):
        for scope in tree:
            names.update(value.name for value in defined(scope) if value.name)
            names.update(node.name for node in scope if node.name)
    return names


def fix_names(model: Model) -> dict[str, str]:
    """Rename what has another's name, inner scopes before outer ones; returns {new: old}.

    A function is a namespace of its own. Graph inputs and outputs keep their names. Values that
    are read but have no name get one; so do nodes that share a name within their graph.
    """
    trees = [list(tree) for tree in scope_trees(model)]
    clashes = [(_name_clashes(tree), _node_clashes(tree)) for tree in trees]
    changed: dict[str, str] = {}
    if not any(values or nodes for values, nodes in clashes):
        return changed
    names = Names(all_names(model))
    for values, nodes in clashes:
        for value in values:
            old = value.name or "value"
            rename(value, names.new(old))
            changed[value.name or ""] = old
        for node in nodes:
            old = node.name or ""
            node.name = names.new(old)
            changed[node.name] = old
    return changed


def _name_clashes(tree: list[Scope]) -> list[Value]:
    """Values without a name that need one, and values whose name an earlier one has."""
    owner: dict[str, Value] = {}
    for scope in tree[:1]:  # the interface comes first: it keeps its names
        for value in (*scope.inputs, *scope.outputs):
            owner.setdefault(value.name or "", value)
    owner.pop("", None)
    clashes: list[Value] = []
    for scope in tree:
        for value in defined(scope):
            if not value.name:
                if value.is_graph_output() or value.uses():
                    clashes.append(value)
            elif owner.setdefault(value.name, value) is not value:
                clashes.append(value)
    return clashes


def _node_clashes(tree: list[Scope]) -> list[Node]:
    clashes: list[Node] = []
    for scope in tree:
        seen: set[str] = set()
        for node in scope:
            if node.name and node.name in seen:
                clashes.append(node)
            seen.add(node.name or "")
    return clashes
