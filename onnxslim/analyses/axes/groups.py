"""Groups of units that can be removed: the same kind of thing, one unit like the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes.site import Layer, Trace
from onnxslim.analyses.axes.solve import Closures, Matrix, Solved, solve, sparse
from onnxslim.analyses.axes.trace import trace
from onnxslim.ir import Array, Model, Value
from onnxslim.pipeline.analysis import Analysis, AnalysisManager, Aspect

HEADS, QK, VO = "attention heads", "query and key dimensions", "value dimensions"
CHANNELS, HIDDEN, CONV_GROUPS = "channels", "hidden units", "convolution groups"


@dataclass(frozen=True)
class Group:
    """Units of one kind. `units` holds for each what goes with it: classes of atoms, ascending.

    `rows` are the layers that compute the units, `columns` those that read them.
    """

    name: str  # of the first layer that computes it
    kind: str
    units: tuple[Array, ...]
    rows: tuple[Layer, ...]
    columns: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """How many units there are."""
        return len(self.units)


@dataclass(frozen=True)
class Stuck:
    """A layer's outputs that cannot be removed, or only some, and why."""

    node: str
    op: str
    share: float  # of its outputs
    reason: str


@dataclass(frozen=True)
class AxisMap:
    """What every axis of a model carries."""

    trace: Trace
    solved: Solved
    groups: tuple[Group, ...]

    def classes(self, ids: Array) -> Array:
        """The classes of atoms."""
        return np.asarray(self.solved.root[ids])

    def nothing(self) -> Array:
        """Flags per class, all false: which are removed."""
        return np.zeros(self.solved.count, np.bool_)

    def axes(self, value: Value) -> tuple[Array | None, ...]:
        """Classes along each axis of a value."""
        found = self.trace.axes.get(value, ())
        return tuple(None if ids is None else self.classes(ids) for ids in found)

    @cached_property
    def stuck(self) -> tuple[Stuck, ...]:
        """The layers of which something cannot be removed, with the first reason found."""
        free = self.nothing()
        for group in self.groups:
            for unit in group.units:
                free[unit] = True
        found: list[Stuck] = []
        for layer in self.trace.layers:
            rows = None if layer.rows is None else self.classes(layer.rows)
            if rows is None:
                found.append(Stuck(ir.label(layer.node), ir.op(layer.node), 1.0, "its state stays"))
            elif not free[rows].all():
                share = float(1 - free[rows].mean())
                found.append(
                    Stuck(
                        ir.label(layer.node), ir.op(layer.node), share, self._why(rows[~free[rows]])
                    )
                )
        return tuple(found)

    def _why(self, classes: Array) -> str:
        inherited = self._inherited[classes]
        for one in (*classes.tolist(), *inherited[inherited >= 0].tolist()):
            fact = self.solved.reasons.get(one)
            if fact is not None:
                return f"{fact.op} '{fact.node}': {fact.reason}"
        return "what it is reshaped with must stay"

    @cached_property
    def _inherited(self) -> Array:
        """Of each position of a product a class of its factors that must stay, else -1."""
        found = np.full(self.solved.count, -1, np.int64)
        for product in self.solved.products:
            for axis in product.axes:
                if axis is not None and self.solved.frozen[axis].any():
                    found[product.flat] = axis[self.solved.frozen[axis]][0]
        return found


@dataclass(frozen=True)
class Axes(Analysis[AxisMap]):
    """The dimension analysis: see `axis_map`."""

    width: bool = False
    reads = Aspect.STRUCTURE | Aspect.SHAPES | Aspect.WEIGHTS

    def compute(self, model: Model, analyses: AnalysisManager) -> AxisMap:
        """Linear in nodes and positions."""
        return axis_map(model, width=self.width)


def axis_map(model: Model, *, width: bool = False) -> AxisMap:
    """Which positions of which axes go together, and the groups that can be pruned.

    With `width`, positions that are normalized over can go as well: LayerNormalization and the
    like then are over those that stay.
    """
    found = trace(model, width=width)
    solved = solve(found.atoms)
    units = Closures(solved).units()
    return AxisMap(found, solved, _groups(found, solved, units))


def _groups(found: Trace, solved: Solved, units: Matrix) -> tuple[Group, ...]:
    """Units that touch the same axes of the same values make up a group."""
    made = _marks(solved, [layer.rows for layer in found.layers])
    useful = np.flatnonzero(np.asarray(units @ made.astype(np.int64)) > 0)
    units, touched = _touched(found, solved, units[useful])
    by_kind: dict[int, list[int]] = {}
    for row, key in enumerate(touched.tolist()):
        by_kind.setdefault(key, []).append(row)
    units.sort_indices()
    families = [rows for rows in by_kind.values() if len(rows) > 1]
    firsts = units[[rows[0] for rows in families]]
    reader = _Reader(found, solved, firsts)
    made_of = [[_row(units, row) for row in rows] for rows in families]
    groups = [reader.group(at, members) for at, members in enumerate(made_of)]
    order = {layer.node: at for at, layer in enumerate(found.layers)}
    return tuple(sorted(groups, key=lambda g: order[g.rows[0].node]))


def _row(matrix: Matrix, row: int) -> Array:
    own: Array = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
    return own.astype(np.int64)


def _marks(solved: Solved, axes: Sequence[Array | None]) -> Array:
    marks = np.zeros(solved.count, np.bool_)
    for ids in axes:
        if ids is not None:
            marks[solved.root[ids]] = True
    return marks


def _touched(found: Trace, solved: Solved, units: Matrix) -> tuple[Matrix, Array]:
    """Units that leave something of every axis, and a number for each of them.

    It is equal for units that touch the same axes (up to a chance of 2^-60).
    """
    axes = [ids for kinds in found.axes.values() for ids in kinds if ids is not None]
    if not axes or units.shape[0] == 0:
        return units, np.zeros(int(units.shape[0]), np.int64)
    touched = sparse.csr_array(units @ _incidence(solved, axes))
    sizes = np.array([ids.size for ids in axes])
    count = int(touched.shape[0])
    each: Array = np.diff(touched.indptr)
    rows = np.repeat(np.arange(count), each)
    stays = np.ones(count, np.bool_)
    stays[rows[touched.data == sizes[touched.indices]]] = False
    touched.data = np.ones_like(touched.data)
    tokens = np.random.default_rng(0).integers(1, 1 << 61, len(axes))
    keys: Array = np.asarray(touched @ tokens)
    return units[np.flatnonzero(stays)], keys[stays]


def _incidence(solved: Solved, axes: Sequence[Array | None]) -> Matrix:
    """Which classes lie on which axes, [classes, axes]."""
    none: Array = np.zeros(0, np.int64)
    classes = [none if ids is None else solved.root[ids] for ids in axes]
    columns = np.repeat(np.arange(len(classes)), [own.size for own in classes])
    rows = np.concatenate([none, *classes])
    ones = np.ones(rows.size, np.int64)
    found: Matrix = sparse.csr_array((ones, (rows, columns)), shape=(solved.count, len(classes)))
    return found


class _Reader:
    """Says what groups are, from where their classes are met."""

    def __init__(self, found: Trace, solved: Solved, firsts: Matrix) -> None:
        self.found, self.solved = found, solved
        self.rows = self._layers(firsts, [layer.rows for layer in found.layers])
        self.columns = self._layers(firsts, [layer.columns for layer in found.layers])
        meetings = found.meetings
        self.heads = self._all([a for m in meetings for a in m.batch] + self._counted("num_heads"))
        self.inner = self._all([m.inner for m in meetings])
        self.outer = self._all([a for m in meetings for a in m.outer])
        self.conv_groups = self._all(self._counted("group"))

    def _layers(self, firsts: Matrix, axes: list[Array | None]) -> list[tuple[Layer, ...]]:
        """For each group the layers on whose axes its first unit lies."""
        incidence = _incidence(self.solved, axes)
        met = sparse.csr_array(firsts @ incidence)
        met.sort_indices()
        return [
            tuple(self.found.layers[int(i)] for i in _row(met, row))
            for row in range(int(met.shape[0]))
        ]

    def _all(self, axes: Sequence[Array | None]) -> Array:
        return _marks(self.solved, axes)

    def _counted(self, ending: str) -> list[Array]:
        return [
            ids
            for fact in self.found.counted
            if fact.attribute.endswith(ending)
            for element in fact.elements
            for ids in element
        ]

    def group(self, at: int, units: list[Array]) -> Group:
        """The group of units that touch the same axes; its first unit stands for all."""
        rows, columns = self.rows[at], self.columns[at]
        name = ir.label(rows[0].node)
        return Group(name, self._kind(units[0], rows), tuple(units), rows, columns)

    def _kind(self, classes: Array, rows: tuple[Layer, ...]) -> str:
        if self.heads[classes].any():
            return HEADS
        if self.inner[classes].any():
            return QK
        if self.outer[classes].any():
            return VO
        if self.conv_groups[classes].any() and not _depthwise(rows):
            return CONV_GROUPS
        convolution = any(ir.op(layer.node).startswith("Conv") for layer in rows)
        return CHANNELS if convolution else HIDDEN


def _depthwise(rows: tuple[Layer, ...]) -> bool:
    """Whether every grouped convolution among them reads one channel per group."""
    for layer in rows:
        groups = int(ir.attribute(layer.node, "group", 1))
        if groups > 1 and (layer.columns is None or layer.columns.size != groups):
            return False
    return True
