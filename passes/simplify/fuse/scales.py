"""Constant factors and offsets moved into the columns of the matrix that they come from.

x @ W + b -> views -> * s       becomes   x @ (W s) + b s -> views
x @ W + b -> views -> + c       becomes   x @ W + (b + c) -> views
(x @ W + b -> views) @ k * s    becomes   (x @ (W s) + b s -> views) @ k      (s one number)
Views are Transpose, Reshape, Gather, Slice, Split, ...; where only some columns get there, as of
a matrix for queries, keys and values at once, only those are changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Array, Editor, Node, TensorProtocol, Value
from onnxslim.passes.fold.affine import finite
from onnxslim.passes.fold.batchnorm import Arithmetic, arithmetic
from onnxslim.passes.simplify.fuse.axes import may_change_shape
from onnxslim.passes.simplify.fuse.columns import Columns, columns_of, is_view, through
from onnxslim.passes.simplify.fuse.fusion import readers
from onnxslim.passes.simplify.fuse.matmul import Dense, changed, dense_before, set_weight
from onnxslim.rewrite import Rewrite, Rule

_LONGEST = 32


@dataclass(frozen=True)
class _Path:
    """From the output of a layer to a value: each node, and which of its outputs is next."""

    layer: Dense
    steps: tuple[tuple[Node, Value], ...] = ()


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    does = arithmetic(node)
    if isinstance(does, str):
        return None
    path = _path_to(does.x)
    if path is None or isinstance(path, str):
        return path
    if (reason := may_change_shape(does.constant.shape, does.x, facts)) is not None:
        return reason
    found = _columns_at_end(path, node, facts)
    if isinstance(found, str):
        return found
    vectors = _by_column(does, found, path.layer.sizes[1])
    if vectors is None or isinstance(vectors, str):
        return vectors
    factor, offset = vectors
    if offset.any() and path.layer.bias is None:
        return None  # there is no bias that the constant could become part of
    return lambda editor: move(editor, node, does.x, path.layer, factor, offset)


def _path_to(end: Value) -> _Path | str | None:
    """Back from a value through views, and by products of activations, to a layer.

    A product is followed into both of its operands, the first one first.
    """
    reason: str | None = None
    waiting: list[tuple[Value, tuple[tuple[Node, Value], ...]]] = [(end, ())]
    for _ in range(_LONGEST):
        if not waiting:
            break
        value, steps = waiting.pop()
        found = dense_before(value)
        if isinstance(found, Dense):
            return _Path(found, steps)
        reason = reason or found
        node = value.producer()
        if node is None:
            continue
        more = ((node, value), *steps)
        if is_view(node) and node.inputs[0] is not None:
            waiting.append((node.inputs[0], more))
        elif ir.op(node) == "MatMul" and not _is_product_of_one(node):
            waiting.extend((v, more) for v in reversed(node.inputs[:2]) if v is not None)
    return reason


def _is_product_of_one(node: Node) -> bool:
    """Whether a MatMul multiplies a value by itself: then a factor would be there twice."""
    return node.inputs[0] is node.inputs[1]


def _columns_at_end(path: _Path, node: Node, facts: Facts) -> Columns | str:
    """The columns that get to the node; a reason where others read the same ones on the way."""
    count = path.layer.sizes[1]
    rank = facts.rank(path.layer.output)
    if rank is None:
        return "the rank of the MatMul is not known"
    columns = columns_of(rank, count)
    points: list[tuple[Value, Columns]] = []
    value = path.layer.output
    for step, output in path.steps:
        points.append((value, columns))
        after = _after(step, output, columns, facts)
        if isinstance(after, str):
            return after
        columns = after
        value = output
    points.append((value, columns))
    if not columns.all():
        return "no column gets there"
    return (
        _shared(points, [step for step, _ in path.steps] + [node], columns.all(), facts) or columns
    )


def _after(step: Node, output: Value, columns: Columns, facts: Facts) -> Columns | str:
    """The columns behind a step of the path: a view, or a product with another activation."""
    if ir.op(step) == "MatMul":
        return Columns(None, mixed=columns.all())
    return through(step, output, columns, facts)


def _shared(
    points: Sequence[tuple[Value, Columns]],
    members: Sequence[Node],
    mine: frozenset[int],
    facts: Facts,
) -> str | None:
    """Why the columns cannot be changed: something beside the path reads them too."""
    for (value, columns), member in zip(points, members, strict=True):
        if value.is_graph_output():
            return f"'{value.name}' is a graph output"
        uses = [use for use in value.uses() if use.node is not member]
        if member.graph is not value.graph or len(value.uses()) - len(uses) != 1:
            return f"'{value.name}' is read twice, or in another graph"
        for use in uses:
            for output in use.node.outputs:
                other = through(use.node, output, columns, facts) if use.idx == 0 else ""
                if isinstance(other, str) or other.all() & mine:
                    return f"'{value.name}' is read by '{ir.label(use.node)}' too"
        if is_view(member):  # other outputs of a Split
            own = [v for v in member.outputs if v in {value for value, _ in points}]
            for output in member.outputs:
                if output in own or not (output.uses() or output.is_graph_output()):
                    continue
                other = through(member, output, columns, facts)
                if isinstance(other, str) or other.all() & mine:
                    return f"'{output.name}' holds the same columns"
    return None


def _by_column(does: Arithmetic, columns: Columns, count: int) -> tuple[Array, Array] | str | None:
    """Factor and offset as one number per column of the weight; None where they are no such."""
    factor, offset = np.ones(count), np.zeros(count)
    mine = sorted(columns.all())
    if does.constant.size == 1:
        factor[mine], offset[mine] = does.factor.ravel()[0], does.offset.ravel()[0]
        if columns.digits is None and offset.any():
            return "an offset cannot be moved over a product"
        return factor, offset
    if columns.digits is None:
        return None
    rank = len(columns.digits)
    shape = (1,) * (rank - does.constant.ndim) + does.constant.shape
    for size, digit in zip(shape, columns.digits, strict=True):
        if size != 1 and digit is None:
            return None
    grid = columns.grid()
    for target, given in ((factor, does.factor), (offset, does.offset)):
        full = np.reshape(given, shape if given.size > 1 else (1,) * rank)
        target[grid.ravel()] = np.broadcast_to(full, grid.shape).ravel()
    return factor, offset


def move(
    editor: Editor, node: Node, x: Value, layer: Dense, factor: Array, offset: Array
) -> Sequence[Node]:
    """Take out the node that scales and shifts x, whose work the layer then does by column."""
    dtype = layer.tensor.dtype.numpy()
    by_column: Array = factor.reshape(-1, 1) if layer.transposed else factor
    weight: TensorProtocol | None = None
    if (factor != 1).any():
        weight = changed(layer.tensor, by_column, lambda old: old * by_column)
    vector: Array | None = None
    if layer.bias is not None:
        given = ir.array(layer.bias[0].inputs[layer.bias[1]])
        assert given is not None
        sums = given.astype(np.float64).ravel() * factor + offset / layer.beta
        vector = finite(sums, dtype).reshape((*(1,) * (given.ndim - 1), -1))
    touched = readers(node.outputs[0])
    editor.bypass(node, x)
    if weight is not None:
        set_weight(editor, layer.node, 1, weight)
    if layer.bias is not None and vector is not None:
        set_weight(editor, *layer.bias, vector)
    return [layer.node, *([layer.bias[0]] if layer.bias is not None else []), *touched]


SCALES = Rule(
    "affine-into-matmul", frozenset({"Mul", "Div", "Add", "Sub"}), _match,
    "MatMul -> views -> Mul, Add by constants -> MatMul' -> views", exact=False,
)  # fmt: skip
RULES: tuple[Rule, ...] = (SCALES,)
