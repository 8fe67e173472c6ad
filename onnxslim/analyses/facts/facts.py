"""Facts about the values of a model, kept up to date while it is rewritten.

Sizes that inputs declare under one name are one size. In the shapes that a Reshape computes, at
most one of the unrelated sizes of a run is taken to be 0 (see `reshape.py`); symbolic sums and
products are taken not to overflow their integer type.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts.dims import Dim, Expr, opaque
from onnxslim.analyses.facts.fact import LIMITS, UNKNOWN, Fact, constant_fact, numbers
from onnxslim.analyses.facts.infer import infer
from onnxslim.analyses.facts.scopes import branch_outputs, declared, formal
from onnxslim.ir import Array, DataType, Graph, Model, Node, Value

_RIPPLE = 400
"""So many readers behind a changed node are looked at again at most."""


class Facts:
    """What holds for every valid run of a model; believed are only inputs, weights and operators.

    Cost: one sweep over the nodes, about 20 microseconds each; weights are not read.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._facts: dict[Value, Fact] = {}
        self._known_from: dict[Node, list[object]] = {}
        self._unknowns = 0
        self._imports: dict[Graph, Mapping[str, int]] = {}
        self._holder: dict[Graph, Node] = {}
        for scope in ir.scopes(model):
            self._enter(scope)
        for scope in ir.scopes(model):
            for node in scope:
                self._settle(node)

    def _enter(self, scope: ir.Scope) -> None:
        if isinstance(scope, ir.Function):
            for inner in ir.scope_tree(scope):
                graph = inner.graph if isinstance(inner, ir.Function) else inner
                self._imports[graph] = scope.opset_imports
        for node in scope:
            if node.attributes:
                for graph in ir.subgraphs(node):
                    self._holder[graph] = node

    # What callers ask for

    def dtype(self, value: Value | None) -> DataType | None:
        """The element type of a tensor; None where it is unknown or no tensor."""
        return self._fact(value).dtype

    def shape(self, value: Value | None) -> tuple[Dim, ...] | None:
        """The shape of a tensor; None where even the rank is unknown."""
        return self._fact(value).shape

    def rank(self, value: Value | None) -> int | None:
        """The number of axes of a tensor, if known."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def sizes(self, value: Value | None) -> tuple[int, ...] | None:
        """The shape where all of it is numbers, else None."""
        return numbers(self.shape(value))

    def content(self, value: Value | None) -> tuple[Dim, ...] | None:
        """The elements of a small integer or boolean tensor of rank 0 or 1: a shape, axes, pads.

        An element of which nothing is known is an expression of its own.
        """
        fact = self._fact(value)
        if fact.content is not None and fact.shape is not None and len(fact.shape) <= 1:
            return fact.content
        if value is None or (array := ir.array(value)) is None or array.ndim > 1:
            return None
        return tuple(map(int, array.ravel().tolist())) if array.dtype.kind in "iu" else None

    def constant(self, value: Value | None) -> Array | None:
        """The integer or boolean array that a computed value always is; None where it varies.

        At most 64 elements, of dtype int64, int32 or bool.
        """
        fact = self._fact(value)
        sizes, content = numbers(fact.shape), numbers(fact.content)
        if fact.dtype is None or sizes is None or content is None or fact.dtype not in LIMITS:
            return None
        return np.array(content, fact.dtype.numpy()).reshape(sizes)

    def array(self, value: Value | None) -> Array | None:
        """The constant that a value always is: an initializer, a Constant, or what was found."""
        array = ir.array(value)
        return self.constant(value) if array is None else array

    def opset(self, node: Node) -> int:
        """The version of the standard operators that the node's model or function imports."""
        return self._imports_of(node).get("", 1)

    def learn(self, node: Node) -> bool:
        """Find the facts of the outputs of a new or changed node from those of its inputs.

        Readers follow, as far as they change and up to a bound. Returns whether something changed.
        """
        changed = self._settle(node)
        work = deque(changed)
        for _ in range(_RIPPLE):
            if not work:
                break
            for use in work.popleft().uses():
                if use.node in self._known_from:
                    work.extend(self._settle(use.node))
        return bool(changed)

    # How they are found

    def _imports_of(self, node: Node) -> Mapping[str, int]:
        graph = node.graph
        if isinstance(graph, Graph) and graph in self._imports:
            return self._imports[graph]
        return self.model.opset_imports

    def _fact(self, value: Value | None) -> Fact:
        if value is None:
            return UNKNOWN
        producer = value.producer()
        if producer is None:
            return self._source(value)
        constant = producer.op_type == "Constant"
        if value not in self._facts or (constant and self._is_stale(value, producer)):
            self._settle(producer)
        return self._facts.get(value, UNKNOWN)

    def _is_stale(self, value: Value, producer: Node) -> bool:
        attribute = producer.attributes.get("value")
        return attribute is None or attribute.value is not self._facts[value].tensor

    def _source(self, value: Value) -> Fact:
        """An initializer, an input of the model, or a formal input of a body or function."""
        fact = self._facts.get(value)
        if fact is not None and fact.tensor is value.const_value:
            return fact
        if ir.is_fixed(value) and value.const_value is not None:
            fact = constant_fact(value.const_value)
        elif fact is not None and fact.tensor is None:
            return fact
        elif value.graph is self.model.graph:
            fact = declared(value, self._fresh)
        else:
            fact = self._formal(value)
        self._facts[value] = fact
        return fact

    def _formal(self, value: Value) -> Fact:
        holder = self._holder.get(value.graph) if isinstance(value.graph, Graph) else None
        return UNKNOWN if holder is None else formal(value, holder, self._fact)

    def _fresh(self, size: bool) -> Expr:
        self._unknowns += 1
        return opaque(self._unknowns, size)

    def _settle(self, node: Node) -> Sequence[Value]:
        """Compute a node, before it what it reads and what is not known yet; what changed of it."""
        stack = [node]
        waiting: set[Node] = set()
        changed: Sequence[Value] = ()
        while stack:
            top = stack[-1]
            missing = () if top in waiting else self._missing(top)
            waiting.add(top)
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            changed = self._compute(top)
        return changed

    def _missing(self, node: Node) -> list[Node]:
        """The producers of inputs and of branches' outputs that nothing is known of yet."""
        needed = [*node.inputs, *branch_outputs(node)] if node.attributes else node.inputs
        producers = (v.producer() for v in needed if v is not None and v not in self._facts)
        return [producer for producer in producers if producer is not None]

    def _compute(self, node: Node) -> Sequence[Value]:
        inputs = [None if value is None else self._fact(value) for value in node.inputs]
        branches = [self._fact(value) for value in branch_outputs(node)] if node.attributes else []
        state: list[object] = [
            node.op_type,
            node.domain,
            *node.attributes.values(),
            *inputs,
            *branches,
        ]
        before = self._known_from.get(node)
        if before is not None and _same(before, state) and self._knows(node):
            return ()
        self._known_from[node] = state
        found = infer(node, inputs, branches, self._imports_of(node), self._fresh)
        changed: list[Value] = []
        for value, fact in zip(node.outputs, found, strict=True):
            old = self._facts.get(value)
            if old is None or old.says() != fact.says():
                self._facts[value] = fact
                changed.append(value)
        return changed

    def _knows(self, node: Node) -> bool:
        return all(value in self._facts for value in node.outputs)


def _same(one: Sequence[object], two: Sequence[object]) -> bool:
    """Whether the very same objects are in both, strings compared as such."""
    return len(one) == len(two) and all(
        a is b or (isinstance(a, str) and a == b) for a, b in zip(one, two, strict=True)
    )
