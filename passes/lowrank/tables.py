"""Embeddings, and the output heads that share their table: found and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod

import numpy as np

from onnxslim import ir
from onnxslim.analyses.columns import Tap
from onnxslim.analyses.layer_stats import LayerStats
from onnxslim.analyses.shapes import Shapes
from onnxslim.ir import Array, Model, Node, Value
from onnxslim.passes.lowrank.candidates import Candidate, Cut
from onnxslim.passes.lowrank.felt import felt
from onnxslim.passes.lowrank.gain import DISTURBANCE, Probe
from onnxslim.passes.lowrank.schemes import Scheme
from onnxslim.passes.lowrank.survey import held_out
from onnxslim.passes.lowrank.table import (
    Split,
    expected,
    head_error,
    powers_in,
    read_error,
    shares,
    split,
    split_and_keep,
)
from onnxslim.pipeline.base import Context, Declined
from onnxslim.runtime.samples import Samples
from onnxslim.runtime.session import open_session

TABLE = Scheme("table")
_LEAST = 256  # rows: smaller tables are not worth it


@dataclass(frozen=True)
class Table:
    """A table, who reads it, and what can be done to it. Losses of reading and of the head are
    relative; `rows` are how many a run reads and how many the head multiplies."""

    name: str
    value: Value
    gathers: tuple[Node, ...]
    turned: Node | None  # the Transpose before the head
    head: Node | None
    rows: tuple[int, int]
    split: Split
    kept: Array  # numbers of the rows that stay as they are
    often: Array  # [v] the probability that each row is read
    covariance: Array | None  # of the head's input
    read: Mapping[int, float]
    headed: Mapping[int, float]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and their length."""
        array = content(self.value)
        return int(array.shape[0]), int(array.shape[1])

    def candidates(self, gains: tuple[float, float]) -> list[Candidate]:
        """As it is, then every rank; losses are weighted by the gains of both uses."""
        v, d = self.size
        reads, heads = self.rows
        made = [Candidate(None, 0, heads * v * d, v * d, 0.0)]
        exact = (len(self.kept) + 1) * d if len(self.kept) else 0
        for r in self.read:
            loss = gains[0] * self.read[r] + gains[1] * self.headed.get(r, 0.0)
            macs = reads * r * d + heads * r * (v + d)
            params = r * (v + d) + exact
            made.append(Candidate(Cut(TABLE, 0.0, {}, {}), r, macs, params, loss))
        return made

    def factors(self, rank: int) -> tuple[Array, Array]:
        """A [v, r] and B [r, d], balanced in scale; A is zero for rows that are kept."""
        table = content(self.value).astype(np.float64)
        narrow: Array = table @ self.split.down[:, :rank]
        narrow[self.kept] = 0.0
        up = self.split.up[:rank]
        spread = np.sqrt(np.maximum(self.often @ np.square(narrow), 1e-30))
        scale = np.sqrt(np.maximum(np.linalg.norm(up, axis=1), 1e-30) / spread)
        return narrow * scale, up / scale[:, None]

    def probes(self) -> list[Probe | None]:
        """Of its first reader and of the head."""
        rank = min(self.read, key=lambda r: abs(self.read[r] / DISTURBANCE - 1))
        narrow, up = self.factors(rank)
        table = content(self.value).astype(np.float64)
        change = (narrow @ up - table).astype(np.float32)
        change[self.kept] = 0.0
        gather = self.gathers[0]

        def reading(ids: Array) -> Array:
            read: Array = change[ids]
            return read

        found: list[Probe | None] = [
            Probe(str(gather.inputs[1].name), str(gather.outputs[0].name), reading, self.read[rank])  # type: ignore[union-attr]
        ]
        if self.head is None or self.covariance is None:
            return [*found, None]

        def heading(h: Array) -> Array:
            result: Array = h @ np.transpose(change)
            return result

        read = self.head.inputs[0]
        assert read is not None
        return [
            *found,
            Probe(str(read.name), str(self.head.outputs[0].name), heading, self.headed[rank]),
        ]


def find_tables(
    model: Model, ctx: Context, skip: tuple[str, ...], step: int
) -> tuple[list[Table], list[Declined]]:
    """The tables that can be cut, judged on samples; those that cannot, with the reason."""
    found: list[Table] = []
    declined: list[Declined] = []
    for value in list(model.graph.initializers.values()):
        gathers = [n for n, _ in value.uses() if ir.op(n) == "Gather" and n.inputs[0] is value]
        tensor = ir.constant(value)
        if not gathers or tensor is None or not _worth(content(value), tensor.dtype):
            continue
        made = _table(model, ctx, value, gathers, skip, step)
        if isinstance(made, str):
            declined.append(Declined(ir.label(gathers[0]), made))
        else:
            found.append(made)
    return found, declined


def _worth(rows: Array, dtype: ir.DataType) -> bool:
    return rows.ndim == 2 and len(rows) >= _LEAST and dtype == ir.DataType.FLOAT


def _table(
    model: Model,
    ctx: Context,
    value: Value,
    gathers: list[Node],
    skip: tuple[str, ...],
    step: int,
) -> Table | str:
    name = ir.label(gathers[0])
    if any(fnmatchcase(name, pattern) for pattern in skip):
        return "named in skip"
    if any(ir.attribute(n, "axis", 0) for n in gathers):
        return "it is read by columns"
    if any(n.graph is not model.graph for n, _ in value.uses()):
        return "it is read inside a subgraph"
    others = [n for n, _ in value.uses() if n not in gathers]
    turned, head = _head(others)
    if others and head is None:
        return f"{ir.op(others[0])} reads the table too"
    v, d = (int(n) for n in content(value).shape)
    ranks = range(step, min((v * d - 1) // (v + d), d) + 1, step)
    if not ranks or ctx.env.calib is None:
        return "no rank makes it smaller" if ctx.env.calib else "it needs calibration samples"
    return _judged(ctx, model, Table(
        name, value, tuple(gathers), turned, head, _rows(ctx, gathers, head),
        Split(np.zeros((d, 0)), np.zeros((0, d))), np.zeros(0, np.int64), np.zeros(v), None, {}, {},
    ), ranks)  # fmt: skip


def _head(others: list[Node]) -> tuple[Node | None, Node | None]:
    """The Transpose of the table and the MatMul that alone reads it."""
    if len(others) != 1 or ir.op(others[0]) != "Transpose":
        return None, None
    readers = [n for n, _ in others[0].outputs[0].uses()]
    product = readers[0] if len(readers) == 1 else None
    if product is None or ir.op(product) != "MatMul":
        return None, None
    right = product.inputs[1] is others[0].outputs[0]
    return (others[0], product) if right else (None, None)


def _rows(ctx: Context, gathers: list[Node], head: Node | None) -> tuple[int, int]:
    shapes = ctx.analyses.get(Shapes())
    reads = sum(prod(shapes.sizes(n.inputs[1]) or (1,)) for n in gathers if n.inputs[1])
    before = None if head is None or head.inputs[0] is None else shapes.sizes(head.inputs[0])
    return reads, prod((before or (0,))[:-1]) if head is not None else 0


def _judged(ctx: Context, model: Model, table: Table, ranks: range) -> Table | str:
    """With its losses by rank, on samples held out where there are enough."""
    assert ctx.env.calib is not None
    rows = content(table.value).astype(np.float64)
    fit, held = held_out(ctx.env.calib)
    reads_fit = _reads(model, table, fit)
    often = expected(_together(reads_fit), len(rows))
    judged = often
    if held is not None:
        judged = shares(_together(_reads(model, table, held)), len(rows))
    if not (reads := float(judged @ np.square(rows).sum(axis=1))) > 0:
        return "the samples read only rows of zeros"
    if table.head is None:
        made = str(table.gathers[0].outputs[0].name)
        lengths = [read[0].size for read in reads_fit]
        metric = felt(model, made, rows, lengths, fit, ctx.env)
        return _judged_alone(table, rows, often, judged, ranks, metric)
    covariance = _head_input(ctx, table.head)
    if isinstance(covariance, str):
        return covariance
    gram: Array = np.transpose(rows) @ rows
    whole, size = float(np.sum(gram * covariance)), rows.shape[1]
    metric = np.eye(size) / np.trace(gram) + covariance / whole
    both = split(gram, metric)
    read = {r: e / reads for r, e in read_error(rows, judged, both, ranks).items()}
    headed = {r: e / whole for r, e in head_error(gram, covariance, both, ranks).items()}
    return replace(
        table, split=both, often=often, covariance=covariance, read=read, headed=headed
    )  # fmt: skip


def _judged_alone(
    table: Table, rows: Array, often: Array, judged: Array, ranks: range, metric: Array | None
) -> Table:
    """A table that no head shares, by how often rows are read, and are where it is judged."""
    metric = np.eye(rows.shape[1]) if metric is None else metric
    found = split_and_keep(rows, often, judged, ranks, metric)
    reads = float(judged @ powers_in(rows, metric))
    read = {r: e / reads for r, e in found.read.items()}
    return replace(table, split=found.split, kept=found.kept, often=often, read=read)


def _head_input(ctx: Context, head: Node) -> Array | str:
    """E[h h^T] of what the head multiplies, or why it is not known."""
    read = head.inputs[0]
    assert read is not None
    tap = Tap(str(read.name))
    statistics = ctx.analyses.get(LayerStats(taps=(tap,)))
    if tap not in statistics.moments:
        return f"no statistics of the head's input: {statistics.missing.get(tap.tensor, '')}"
    second: Array = statistics.moments[tap].second[0]
    return second


def _reads(model: Model, table: Table, samples: Samples) -> list[list[Array]]:
    """The rows that each sample reads, as often as it does, by the tensors of their numbers."""
    names = list(dict.fromkeys(str(n.inputs[1].name) for n in table.gathers if n.inputs[1]))
    session = open_session(model, extra_outputs=names)
    found = [session.run(feed, names).values() for feed in samples]
    size = table.size[0]  # of which an index below zero counts from the end
    return [[np.asarray(ids).ravel() % size for ids in read] for read in found]


def _together(reads: Sequence[Sequence[Array]]) -> list[Array]:
    return [np.concatenate(read) for read in reads]


def twin_table(model: Model, table: Table) -> Table:
    """The same table of another model that has the same names."""
    made = {str(v.name): node for node in model.graph for v in node.outputs}

    def same(node: Node) -> Node:
        return made[str(node.outputs[0].name)]

    return replace(
        table,
        value=model.graph.initializers[str(table.value.name)],
        gathers=tuple(same(node) for node in table.gathers),
        turned=None if table.turned is None else same(table.turned),
        head=None if table.head is None else same(table.head),
    )


def content(value: Value) -> Array:
    """The rows of a table. Raises ValueError where it is no constant any more."""
    array = ir.array(value)
    if array is None:
        raise ValueError(f"{value.name!r} is no longer a constant")
    return array
