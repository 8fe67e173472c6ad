"""Which nodes of a model depend on constants only, and which of their results are needed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import prod

from onnxslim import ir
from onnxslim.ir import Array, Inferred, Model, Node, Value
from onnxslim.passes.fold.semantics import GROWING, refusal
from onnxslim.passes.fold.static import static_result
from onnxslim.pipeline.base import Declined

_TEXT = 8  # bytes; how long a text is, is not known beforehand


@dataclass
class Region:
    """The nodes of all scopes that can be computed now, in order."""

    nodes: dict[Node, int] = field(default_factory=dict[Node, int])  # with the bytes allowed
    known: dict[Value, Array] = field(default_factory=dict[Value, Array])  # from shapes alone
    declined: list[Declined] = field(default_factory=list[Declined])

    def holds(self, value: Value) -> bool:
        """Whether the value is a constant of the model or a result of the region."""
        producer = value.producer()
        return producer in self.nodes or value in self.known or ir.constant(value) is not None

    def wanted(self) -> list[Value]:
        """The results that something outside of the region reads, or that are graph outputs."""
        results = [v for node in self.nodes for v in node.outputs] + list(self.known)
        return [v for v in dict.fromkeys(results) if v.is_graph_output() or self.outside(v)]

    def outside(self, value: Value) -> list[tuple[Node, int]]:
        """The uses of a value by nodes that stay."""
        return [
            (use.node, use.idx)
            for use in value.uses()
            if use.node not in self.nodes and not self._is_known(use.node)
        ]

    def _is_known(self, node: Node) -> bool:
        return any(output in self.known for output in node.outputs)


@dataclass(frozen=True)
class Search:
    """What decides about a node: sizes known beforehand, the limit, and nodes given up already."""

    model: Model
    types: Mapping[str, Inferred]
    limit: int
    banned: Collection[Node]

    def region(self) -> Region:
        """Linear in nodes: outer scopes come before inner ones, which read their results."""
        found = Region()
        main = self.model.graph
        for scope in (*ir.scope_tree(main), *self.model.functions.values()):
            for node in scope:
                if node in self.banned or ir.op(node) == "Constant" or not node.outputs:
                    continue
                if scope is main and (result := static_result(node, self.types)) is not None:
                    found.known[node.outputs[0]] = result
                else:
                    self._consider(found, node)
        return found

    def _consider(self, found: Region, node: Node) -> None:
        inputs = [value for value in node.inputs if value is not None]
        if not inputs or not all(found.holds(value) for value in inputs):
            return
        if refusal(node) is not None:
            return  # as it should be: nothing that anyone would miss
        allowed = max(self.limit, sum(self._freed(found, value) for value in inputs))
        reason = self._too_large(node, allowed)
        if reason is None:
            found.nodes[node] = allowed
        else:
            found.declined.append(Declined(ir.label(node), reason))

    def _freed(self, found: Region, value: Value) -> int:
        """The bytes that go away with an input of a node: those of what nothing else reads."""
        if len(value.uses()) != 1 or value.is_graph_output():
            return 0
        size = self._bytes(found, value)
        return 0 if size is None else size

    def _bytes(self, found: Region, value: Value) -> int | None:
        if (tensor := ir.constant(value)) is not None:
            return tensor.nbytes
        return found.known[value].nbytes if value in found.known else self._inferred_bytes(value)

    def _inferred_bytes(self, value: Value) -> int | None:
        found = self.types.get(str(value.name))
        if found is None or found.shape is None or found.dtype is None:
            return None
        sizes = [size for size in found.shape if isinstance(size, int)]
        if len(sizes) != len(found.shape):
            return None
        each = _TEXT if found.dtype == ir.DataType.STRING else found.dtype.itemsize
        return int(prod(sizes) * each)

    def _too_large(self, node: Node, allowed: int) -> str | None:
        sizes = [self._inferred_bytes(value) for value in node.outputs if value.name]
        if None in sizes and node.op_type in GROWING:
            return "the size of its result is not known"
        total = sum(size for size in sizes if size is not None)
        return too_large(total, allowed) if total > allowed else None


def too_large(size: int, allowed: int) -> str:
    """What is said of a result over the limit."""
    return f"its result would take {size} bytes, more than the {allowed} allowed (see max_bytes)"
