"""Which operator of the model a kernel's time belongs to.

ONNX Runtime fuses operators, moves layouts and renames what it makes. It keeps words, though: a
kernel's name begins with that of the operator or of the tensor that it comes from, perhaps after
`fused `. So every operator is named after its first output before a model is timed, and each
kernel is then the longest such name that its own begins with. A kernel that has more than one
operator in it counts for the linear one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from onnxslim import ir
from onnxslim.ir import Model, Node
from onnxslim.runtime.kernels import Kernel

CONVERSIONS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Transpose", "ReorderInput", "ReorderOutput"}
)
"""Kernels that only change how a tensor is written, where no operator of the model is in them."""


@dataclass
class Attributed:
    """Milliseconds by operator (the name of its first output).

    `own`: what computes the operator. `after`: other kernels that follow it, such as activations
    and operators that are never integers. `converting`: conversions that follow it.
    """

    own: dict[str, float] = field(default_factory=dict[str, float])
    after: dict[str, float] = field(default_factory=dict[str, float])
    converting: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def total(self) -> float:
        """All kernels."""
        return sum(sum(part.values()) for part in (self.own, self.after, self.converting))


def node_id(node: Node) -> str:
    """The name of its first output: unique in the model, and the same in a snapshot."""
    return str(node.outputs[0].name) if node.outputs else ""


def name_by_outputs(model: Model) -> None:
    """Give every node of the main graph the name by which `attribute` finds it again."""
    for node in model.graph:
        node.name = node_id(node)


def attribute(kernels: Sequence[Kernel], model: Model, operators: Mapping[str, str]) -> Attributed:
    """The times of `operators` (name of the first output -> operator) of a float model.

    `kernels` are those of the model, or of what quant made of it, after `name_by_outputs`.
    """
    return _Attribution(model, operators, kernels).result


class _Attribution:
    def __init__(
        self, model: Model, operators: Mapping[str, str], kernels: Sequence[Kernel]
    ) -> None:
        self.operators = operators
        self.makers = {str(v.name): node for node in model.graph for v in node.outputs if v.name}
        self.order = {name: i for i, name in enumerate(["", *map(node_id, model.graph)])}
        self.result = Attributed()
        origins = [self._origin(kernel.node) for kernel in kernels]
        self.direct = {node_id(self.makers[o]) for o in origins if o is not None}
        self.reached: dict[str, str] = {}  # tensor of the optimized graph -> operator before it
        for kernel, origin in zip(kernels, origins, strict=True):
            self._count(kernel, origin)

    def _count(self, kernel: Kernel, origin: str | None) -> None:
        op = ir.op(kernel.node).rpartition("::")[2]
        parts = [] if origin is None else self._parts(self.makers[origin])
        multiplies = any(word in op for word in _LINEAR)
        linear = [p for p in parts if multiplies and self.operators[p] in _LINEAR]
        where, name = self.result.own, next(iter(linear or parts), None)
        if name is None:
            name = self._before(kernel.node)
            converts = origin is None and op in CONVERSIONS
            where = self.result.converting if converts else self.result.after
        where[name] = where.get(name, 0.0) + kernel.ms
        for output in kernel.node.outputs:
            self.reached[str(output.name)] = parts[0] if parts else name

    def _origin(self, node: Node) -> str | None:
        """The tensor of the model whose name the kernel's begins with."""
        named = _longest_start((node.name or "").removeprefix("fused "), self.makers)
        if named is not None or ir.op(node).rpartition("::")[2] in CONVERSIONS:
            return named
        return next((str(v.name) for v in node.outputs if v.name in self.makers), None)

    def _parts(self, node: Node) -> list[str]:
        """The operators in a kernel that ends with this node: those before it, as far as they have
        no kernel of their own."""
        found: list[str] = []
        todo, seen = [node], {node}
        while todo:
            at = todo.pop(0)
            name = node_id(at)
            if at is not node and name in self.direct:
                continue
            if name in self.operators and (at is node or self.operators[name] in _LINEAR):
                found.append(name)
            if at is not node and name in self.operators:
                continue
            before = (value.producer() for value in at.inputs if value is not None)
            more = [n for n in before if n is not None and n not in seen]
            seen.update(more)
            todo += more if len(seen) < _FUSED else []
        return found

    def _before(self, node: Node) -> str:
        """The last operator that an input of the kernel comes from; empty where none does."""
        inputs = (str(value.name) for value in node.inputs if value is not None)
        found = [self.reached[name] for name in inputs if name in self.reached]
        return max(found, key=self.order.__getitem__, default="")


_LINEAR = frozenset({"Conv", "Gemm", "MatMul"})
_FUSED = 12  # nodes that one kernel may come from


def _longest_start(name: str, known: Collection[str]) -> str | None:
    """The longest of the known names that a name begins with, as a word."""
    ends = (end for end in range(len(name), 0, -1) if name[end : end + 1] in ("", "_", "/"))
    return next((name[:end] for end in ends if name[:end] in known), None)
