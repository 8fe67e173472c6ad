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
    Reading,
    expected,
    head_error,
    powers_in,
    read_error,
    readings,
    shares,
    split,
)
from onnxslim.pipeline.base import Context, Declined
from onnxslim.runtime.samples import Samples
from onnxslim.runtime.session import open_session

TABLE = Scheme("table")
_LEAST = 256  # rows: smaller tables are not worth it


@dataclass(frozen=True)
class Table:
    """A table, who reads it, and what can be done to it. Losses of reading and of the head are
    relative; `rows` are how many a run reads and how many the head multiplies. With a head there
    is one reading, without rows that stay whole."""

    name: str
    value: Value
    gathers: tuple[Node, ...]
    turned: Node | None  # the Transpose before the head
    head: Node | None
    rows: tuple[int, int]
    often: Array  # [v] the probability that each row is read
    readings: tuple[Reading, ...]
    covariance: Array | None  # of the head's input
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
        for number, reading in enumerate(self.readings):
            for r, error in reading.read.items():
                loss = gains[0] * error + gains[1] * self.headed.get(r, 0.0)
                macs = reads * r * d + heads * r * (v + d)
                params = reading.numbers((v, d), r)
                if params < v * d:
                    cut = Cut(TABLE, 0.0, {}, {})
                    made.append(Candidate(cut, r, macs, params, loss, reading=number))
        return made

    def factors(self, part: Candidate) -> tuple[Array, Array]:
        """A [v, r] and B [r, d], balanced in scale; A is zero for rows that are kept."""
        reading = self.readings[part.reading]
        table = content(self.value).astype(np.float64)
        narrow: Array = table @ reading.split.down[:, : part.rank]
        narrow[reading.kept] = 0.0
        up = reading.split.up[: part.rank]
        spread = np.sqrt(np.maximum(self.often @ np.square(narrow), 1e-30))
        scale = np.sqrt(np.maximum(np.linalg.norm(up, axis=1), 1e-30) / spread)
        return narrow * scale, up / scale[:, None]

    def probes(self) -> list[Probe | None]:
        """Of its first reader and of the head."""
        part = min(self.candidates((1.0, 0.0))[1:], key=lambda c: abs(c.loss / DISTURBANCE - 1))
        reading, rank = self.readings[part.reading], part.rank
        narrow, up = self.factors(part)
        table = content(self.value).astype(np.float64)
        change = (narrow @ up - table).astype(np.float32)
        change[reading.kept] = 0.0

        def looked_up(ids: Array) -> Array:
            result: Array = change[ids]
            return result

        ids, row = self.gathers[0].inputs[1], self.gathers[0].outputs[0]
        assert ids is not None
        error = reading.read[rank]
        found: list[Probe | None] = [Probe(str(ids.name), str(row.name), looked_up, error)]
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
        np.zeros(v), (), None, {},
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
    reads = _reads(model, table, fit)
    others = None if held is None else _reads(model, table, held)
    use = _use(reads, others, len(rows))
    if not float(use.judged @ np.square(rows).sum(axis=1)) > 0:
        return "the samples read only rows of zeros"
    table = replace(table, often=use.every)
    if table.head is None:
        made = str(table.gathers[0].outputs[0].name)
        metric = felt(model, made, rows, [read[0].size for read in reads], fit, ctx.env)
        return _judged_alone(table, rows, use, ranks, metric)
    covariance = _head_input(ctx, table.head)
    if isinstance(covariance, str):
        return covariance
    return _judged_with_head(table, rows, use.judged, covariance, ranks)


@dataclass(frozen=True)
class _Use:
    """How often each row is read, [v]: by what is fitted to, by what judges, and expected of all
    samples together."""

    fit: Array
    judged: Array
    every: Array


def _use(reads: list[list[Array]], others: list[list[Array]] | None, size: int) -> _Use:
    fit = expected(_together(reads), size)
    if others is None:
        return _Use(fit, fit, fit)
    judged, every = _together(others), _together([*reads, *others])
    return _Use(fit, shares(judged, size), expected(every, size))


def _judged_alone(
    table: Table, rows: Array, use: _Use, ranks: range, metric: Array | None
) -> Table:
    """A table that no head shares: split for all samples, with the losses that splits for some of
    them have on the others."""
    metric = np.eye(rows.shape[1]) if metric is None else metric
    judged = readings(rows, use.fit, use.judged, ranks, metric)
    final = judged if use.every is use.fit else readings(rows, use.every, use.every, ranks, metric)
    reads = float(use.judged @ powers_in(rows, metric))
    known = (
        replace(last, read={r: e / reads for r, e in first.read.items()})
        for first, last in zip(judged, final, strict=True)
    )
    return replace(table, readings=tuple(known))


def _judged_with_head(
    table: Table, rows: Array, judged: Array, covariance: Array, ranks: range
) -> Table:
    """One split for both uses of the rows."""
    reads = float(judged @ np.square(rows).sum(axis=1))
    gram: Array = np.transpose(rows) @ rows
    whole, size = float(np.sum(gram * covariance)), rows.shape[1]
    metric = np.eye(size) / np.trace(gram) + covariance / whole
    both = split(gram, metric)
    read = {r: e / reads for r, e in read_error(rows, judged, both, ranks).items()}
    headed = {r: e / whole for r, e in head_error(gram, covariance, both, ranks).items()}
    reading = Reading(both, np.zeros(0, np.int64), read)
    return replace(table, readings=(reading,), covariance=covariance, headed=headed)


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
