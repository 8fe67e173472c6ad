"""What the outputs of graphs are promised to be: a rewrite must not change type or shape."""

from __future__ import annotations

from collections.abc import Iterable

from onnxslim import ir
from onnxslim.analyses.facts import Dim, Facts
from onnxslim.errors import PassError
from onnxslim.ir import DataType, Graph, Model, Node, Value

Place = tuple[Graph, int]
"""An output of a graph by its position: which value it is may change."""

_Kind = tuple["DataType | None", "tuple[Dim, ...] | None"]


class Interface:
    """Type and shape of every graph output, as the facts had them before the first rewrite."""

    def __init__(self, model: Model, facts: Facts) -> None:
        self._facts = facts
        self._before: dict[Place, _Kind] = {}
        for scope in ir.scopes(model):
            graph = scope.graph if isinstance(scope, ir.Function) else scope
            for index, value in enumerate(scope.outputs):
                self._before[graph, index] = (facts.dtype(value), facts.shape(value))

    def places(self, node: Node) -> list[Place]:
        """Which outputs a node of the model computes."""
        graph = node.graph
        if graph is None or not any(value.is_graph_output() for value in node.outputs):
            return []
        graph = graph.graph if isinstance(graph, ir.Function) else graph
        outputs = set(node.outputs)
        return [(graph, i) for i, value in enumerate(graph.outputs) if value in outputs]

    def check(self, places: Iterable[Place], touched: Iterable[Node]) -> None:
        """Compare the outputs at the places, and those that the nodes compute, with before.

        Raises:
            PassError: type, rank or a size that both know differs.
        """
        for place in dict.fromkeys([*places, *(p for n in touched for p in self.places(n))]):
            graph, index = place
            value = graph.outputs[index]
            if place in self._before and (said := self._differs(value, self._before[place])):
                raise PassError(f"it gave graph output '{value.name}' another {said}")

    def _differs(self, value: Value, before: _Kind) -> str:
        (was, sizes), now = before, self._facts.dtype(value)
        if was is not None and now is not None and was != now:
            return f"type: {now.name} instead of {was.name}"
        shape = self._facts.shape(value)
        if sizes is None or shape is None or not _contradict(sizes, shape):
            return ""
        return f"shape: {_text(shape)} instead of {_text(sizes)}"


def _contradict(one: tuple[Dim, ...], other: tuple[Dim, ...]) -> bool:
    return len(one) != len(other) or any(
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(one, other, strict=True)
    )


def _text(shape: tuple[Dim, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
