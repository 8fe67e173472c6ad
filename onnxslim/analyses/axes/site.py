"""What the rule of an operator sees of its node, and says about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from onnxslim import ir
from onnxslim.analyses.axes.atoms import Atoms, Axis, Repeated
from onnxslim.analyses.facts import Dim, Facts
from onnxslim.ir import Array, Node, Value

STATISTIC = "it is normalized over this axis, so removing positions changes the others"
RIGID = "it is tied to an axis whose size is fixed or varies from run to run"


class Unfollowed(Exception):
    """A node that a rule cannot follow: all that it reads is frozen, with this reason."""


@dataclass(frozen=True)
class Sink:
    """An input whose axis is summed over: zeros there are as good as nothing."""

    node: Node
    index: int
    axis: int
    ids: Array


@dataclass(frozen=True)
class Restricted:
    """A node that takes a statistic over an axis: when the axis shrinks, over what stays of it."""

    node: Node
    reads: tuple[tuple[int, int], ...]  # inputs that have the axis, and where
    makes: tuple[int, ...]  # outputs that have it at the place of the first input
    ids: Array


@dataclass(frozen=True)
class Counted:
    """An attribute that holds numbers of positions: a product of kept counts per element."""

    node: Node
    attribute: str
    elements: tuple[tuple[Array, ...], ...]  # one tuple of axes per element
    single: bool  # an integer, not a list


@dataclass(frozen=True)
class Work:
    """A node that multiplies: its MACs shrink with each of these axes."""

    node: Node
    axes: tuple[Array, ...]


@dataclass(frozen=True)
class Layer:
    """A node with a weight: `rows` are the atoms of its outputs, `columns` those that it reads."""

    node: Node
    weight: Value
    rows: Axis
    columns: Axis


@dataclass(frozen=True)
class Meeting:
    """A product of two computed tensors: of attention, for the names of groups."""

    node: Node
    batch: tuple[Array, ...]
    inner: Axis
    outer: tuple[Array, ...]


@dataclass
class Trace:
    """All that is known so far. With `width`, axes that are normalized over may shrink."""

    facts: Facts
    width: bool = False
    atoms: Atoms = field(default_factory=Atoms)
    axes: dict[Value, tuple[Axis, ...]] = field(default_factory=dict[Value, "tuple[Axis, ...]"])
    sinks: list[Sink] = field(default_factory=list[Sink])
    restricted: list[Restricted] = field(default_factory=list[Restricted])
    counted: list[Counted] = field(default_factory=list[Counted])
    work: list[Work] = field(default_factory=list[Work])
    layers: list[Layer] = field(default_factory=list[Layer])
    meetings: list[Meeting] = field(default_factory=list[Meeting])

    def of(self, value: Value) -> tuple[Axis, ...] | None:
        """The axes of a value; a constant gets atoms when first asked for. None: unknown rank."""
        if value in self.axes:
            return self.axes[value]
        tensor = ir.constant(value)
        if tensor is not None:
            sizes = [int(n) for n in tensor.shape.numpy()]
            made = tuple(self.atoms.fresh(n) if n > 1 else None for n in sizes)
        else:
            rank = self.facts.rank(value)
            if rank is None:
                return None
            made = (None,) * rank
        self.axes[value] = made
        return made


class Site:
    """One node."""

    def __init__(self, node: Node, trace: Trace) -> None:
        self.node = node
        self.trace = trace
        self.op = ir.op(node)
        self._label = ""

    @property
    def label(self) -> str:
        """What reports call the node."""
        self._label = self._label or ir.label(self.node)
        return self._label

    # What is known

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def input(self, index: int) -> Value:
        """An input that must be there."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        if value is None:
            raise Unfollowed(f"it has no input {index}")
        return value

    def axes(self, index: int = 0) -> tuple[Axis, ...]:
        """The axes of an input."""
        found = self.trace.of(self.input(index))
        if found is None:
            raise Unfollowed("the rank of its input is not known")
        return found

    def dims(self, index: int = 0) -> tuple[Dim, ...]:
        """The sizes of an input."""
        return self._dims(self.input(index))

    def out_dims(self, index: int = 0) -> tuple[Dim, ...]:
        """The sizes of an output."""
        return self._dims(self.node.outputs[index])

    def _dims(self, value: Value) -> tuple[Dim, ...]:
        found = self.trace.facts.shape(value)
        if found is None:
            raise Unfollowed(f"the shape of '{value.name}' is not known")
        return found

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute."""
        return ir.attribute(self.node, name, default)

    def text(self, name: str, default: str = "") -> str:
        """The value of a string attribute."""
        value = self.attr(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def ints(self, index: int) -> list[int] | None:
        """The elements of an integer input that always are the same; None where they vary."""
        if not self.has(index):
            return None
        content = self.trace.facts.content(self.input(index))
        if content is None:
            return None
        found = [n for n in content if isinstance(n, int)]
        return found if len(found) == len(content) else None

    def opset(self) -> int:
        """The version of the standard operators."""
        return self.trace.facts.opset(self.node)

    # What is said

    def fresh(self, size: int) -> Axis:
        """Atoms for a new axis; an axis of one position has none."""
        return self.trace.atoms.fresh(size) if size > 1 else None

    def set(self, index: int, axes: Sequence[Axis]) -> None:
        """The axes of an output. A single position has no axis to shrink, so its atom stays."""
        if index < len(self.node.outputs):
            made = tuple(self._several(axis) for axis in axes)
            self.trace.axes[self.node.outputs[index]] = made

    def _several(self, axis: Axis) -> Axis:
        if axis is None or axis.size > 1:
            return axis
        self.freeze(axis, "a single position of it is used alone")
        return None

    def tie(self, one: Axis, other: Axis) -> Axis:
        """Two axes of the same positions; one whose size never changes freezes the other."""
        if one is None or other is None or isinstance(one, Repeated) != isinstance(other, Repeated):
            self.freeze(one, RIGID)
            self.freeze(other, RIGID)
            return None
        if one.size != other.size:
            raise Unfollowed(f"{one.size} positions meet {other.size}")
        self.trace.atoms.tie(one, other)
        return one

    def freeze(self, axis: Axis, reason: str) -> None:
        """An axis that must stay as it is."""
        if axis is not None:
            self.trace.atoms.freeze(axis, self.label, self.op, reason)

    def product(self, axis: Axis, sizes: Sequence[int], axes: Sequence[Axis]) -> None:
        """An axis that is split into others, of these sizes."""
        if axis is None:
            for part in axes:
                self.freeze(part, RIGID)
        elif all(part is None for part in axes):
            self.freeze(axis, RIGID)
        else:
            self.trace.atoms.product(axis.reshape(tuple(sizes)), axes)

    def merged(self, sizes: Sequence[int], axes: Sequence[Axis]) -> Axis:
        """The axis that others are merged into."""
        if all(part is None for part in axes):
            return None
        size = 1
        for n in sizes:
            size *= n
        flat = self.trace.atoms.fresh(size)
        self.product(flat, sizes, axes)
        return flat

    def sink(self, index: int, axis: int) -> None:
        """An axis of an input that the node sums over."""
        axes = self.axes(index)
        axis += len(axes) if axis < 0 else 0
        ids = axes[axis]
        if ids is not None:
            self.trace.sinks.append(Sink(self.node, index, axis, ids))

    def statistic(self, axis: Axis, reads: Sequence[tuple[int, int]], makes: Sequence[int]) -> None:
        """A statistic is taken over an axis, which must stay unless it may be of what stays."""
        if axis is not None and self.trace.width:
            restricted = Restricted(self.node, tuple(reads), tuple(makes), axis)
            self.trace.restricted.append(restricted)
        else:
            self.freeze(axis, STATISTIC)

    def counted(self, attribute: str, *axes: Axis) -> None:
        """An attribute that is the product of the sizes of these axes."""
        real = tuple(axis for axis in axes if axis is not None)
        self.trace.counted.append(Counted(self.node, attribute, (real,), True))

    def work(self, *axes: Axis) -> None:
        """The axes that the MACs of the node are proportional to."""
        real = tuple(axis for axis in axes if axis is not None)
        self.trace.work.append(Work(self.node, real))

    def layer(self, weight: int, rows: Axis, columns: Axis) -> None:
        """The node is a layer with a weight that can be scored and repaired."""
        value = self.input(weight)
        self.trace.layers.append(Layer(self.node, value, rows, columns))

    def meeting(self, batch: Sequence[Axis], inner: Axis, outer: Sequence[Axis]) -> None:
        """The node multiplies two computed tensors."""
        real = [tuple(a for a in axes if a is not None) for axes in (batch, outer)]
        self.trace.meetings.append(Meeting(self.node, real[0], inner, real[1]))

    def is_constant(self, index: int) -> bool:
        """Whether an input is a weight, perhaps behind a DequantizeLinear."""
        value = self.input(index)
        producer = value.producer()
        if producer is not None and ir.op(producer) == "DequantizeLinear":
            value = producer.inputs[0] or value
        return ir.constant(value) is not None


Rule: TypeAlias = "Callable[[Site], None]"
Rules: TypeAlias = "dict[str, Rule]"
