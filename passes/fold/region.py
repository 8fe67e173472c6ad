"""Which nodes of a model depend on constants only, and which of their results are needed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import prod

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Array, Model, Node, Value
from onnxslim.passes.fold.kernels import KERNELS, compute
from onnxslim.passes.fold.semantics import GROWING, refusal
from onnxslim.pipeline.base import Declined

Roots = frozenset[Value]
"""The large constants that a result is computed from."""

_NO_ROOTS: Roots = frozenset()
_LARGE = 16  # a constant of at least so small a part of the limit is a root
_KEPT = 1 << 20  # bytes of inputs above which results are not held until all are there
_TEXT = 8  # bytes; how long a text is, is not known beforehand
_SMALL = 256  # bytes; what a shape takes is never too large


@dataclass
class Region:
    """The nodes of all scopes that can be computed now, in order."""

    nodes: dict[Node, int] = field(default_factory=dict[Node, int])  # with the bytes allowed
    known: dict[Value, Array] = field(default_factory=dict[Value, Array])  # results already there
    roots: dict[Value, Roots] = field(default_factory=dict[Value, Roots])  # of results; most: none
    declined: list[Declined] = field(default_factory=list[Declined])

    def holds(self, value: Value) -> bool:
        """Whether the value is a constant of the model or a result of the region."""
        if value in self.known:
            return True
        return value.producer() in self.nodes or ir.constant(value) is not None

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
    """What decides about a node: facts, the limit, and nodes given up already."""

    model: Model
    facts: Facts
    limit: int
    banned: Collection[Node]
    staying: Collection[Value]  # constants that will still be needed when all is computed

    def region(self) -> Region:
        """Linear in nodes: outer scopes come before inner ones, which read their results."""
        found = Region()
        for node in ir.nodes(self.model):
            if node not in self.banned and ir.op(node) != "Constant" and node.outputs:
                self._consider(found, node)
        return found

    def _consider(self, found: Region, node: Node) -> None:
        known = self._known(node)
        inputs = [value for value in node.inputs if value is not None]
        if known is None and not (inputs and all(found.holds(value) for value in inputs)):
            return
        if refusal(node) is not None:
            return  # as it should be: nothing that anyone would miss
        roots = _NO_ROOTS.union(*(self._roots(found, value) for value in inputs))
        allowed = max(self.limit, sum(constant_bytes(r) for r in roots if r not in self.staying))
        reason = self._too_large(node, allowed) if known is None else _over(known, allowed)
        if reason is not None:
            found.declined.append(Declined(ir.label(node), reason))
            return
        if known is None:
            known = self._computed(found, node, allowed)
        if known is None:
            found.nodes[node] = allowed
        else:
            found.known |= known
        if roots:
            found.roots |= dict.fromkeys(node.outputs, roots)

    def _roots(self, found: Region, value: Value) -> Roots:
        if value in found.roots:
            return found.roots[value]
        size = constant_bytes(value)
        return frozenset({value}) if size and size * _LARGE >= self.limit else _NO_ROOTS

    def _known(self, node: Node) -> Mapping[Value, Array] | None:
        """What the facts tell of all outputs of a node."""
        results: dict[Value, Array] = {}
        for value in node.outputs:
            array = self.facts.array(value)
            if array is None:
                return None
            results[value] = array
        return results

    def _computed(self, found: Region, node: Node, allowed: int) -> Mapping[Value, Array] | None:
        """What numpy makes of constant inputs, if it is sure to be what a runtime makes of them."""
        if ir.op(node) not in KERNELS or any(v.producer() in found.nodes for v in node.inputs if v):
            return None
        arrays = [self._array(found, value) for value in node.inputs]
        if sum(array.nbytes for array in arrays if array is not None) > _KEPT:
            return None
        result = compute(node, arrays, self.facts.opset(node))
        if result is None or result.nbytes > allowed:
            return None
        return {node.outputs[0]: result}

    def _array(self, found: Region, value: Value | None) -> Array | None:
        if value is None:
            return None
        return found.known[value] if value in found.known else ir.array(value)

    def bytes(self, found: Region, value: Value) -> int:
        """What a result takes; 0 if that is not known before it is computed."""
        if value in found.known:
            return found.known[value].nbytes
        return self._inferred_bytes(value) or 0

    def _inferred_bytes(self, value: Value) -> int | None:
        sizes, dtype = self.facts.sizes(value), self.facts.dtype(value)
        if sizes is None or dtype is None:
            return None
        return int(prod(sizes) * (_TEXT if dtype == ir.DataType.STRING else dtype.itemsize))

    def _too_large(self, node: Node, allowed: int) -> str | None:
        sizes = [self._inferred_bytes(value) for value in node.outputs if value.name]
        if None in sizes and node.op_type in GROWING:
            return "the size of its result is not known"
        total = sum(size for size in sizes if size is not None)
        return too_large(total, allowed) if total > allowed else None


def constant_bytes(value: Value) -> int:
    """What a constant takes; 0 for what is none."""
    tensor = ir.constant(value)
    return 0 if tensor is None else tensor.nbytes


def _over(known: Mapping[Value, Array], allowed: int) -> str | None:
    total = sum(array.nbytes for array in known.values())
    return too_large(total, allowed) if total > max(allowed, _SMALL) else None


def too_large(size: int, allowed: int) -> str:
    """What is said of a result over the limit."""
    return f"its result would take {size} bytes, more than the {allowed} allowed (see max_bytes)"
