"""Heads of a decoder: rotary embeddings, and keys and values that several queries share.

Both are recognised as exporters write them and as `simplify` leaves them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Dim, Facts
from onnxslim.ir import Array, DataType, Node, Value
from onnxslim.passes.quant.prepare.heads import Heads, heads_of, transposed
from onnxslim.rewrite.pattern import Any, Match, either, match, op

_LAST = either(op("Neg", Any("last"), name="negative"), Any("last"))
_TURNED = op("Concat", _LAST, Any("first"), axis=(-1, None))
_ROTATED = op("Add", op("Mul", Any("x"), Any("cos")), op("Mul", _TURNED, Any("sin")))
"""x cos + (-x2, x1) sin, with x1 and x2 the halves of a head (Su et al., 2021)."""


@dataclass(frozen=True)
class Rotation:
    """The tables [positions, D] of cosines and sines, cut to S rows; whether -x2 is computed."""

    cos: Value
    sin: Value
    negated: bool

    def tables(self, length: Dim, facts: Facts) -> tuple[Array, Array] | str:
        """Both [positions, D / 2], from position 0 on, or why they are something else."""
        cos, sin = (_rows_from_zero(value, length, facts) for value in (self.cos, self.sin))
        if cos is None or sin is None or cos.shape != sin.shape or cos.shape[1] % 2:
            return "its rotary tables are not the first rows of constants"
        half = cos.shape[1] // 2
        first = sin[:, :half] if self.negated else -sin[:, :half]
        if not np.array_equal(cos[:, :half], cos[:, half:]):
            return "the halves of its heads turn by different angles"
        if not np.array_equal(first, sin[:, half:]):
            return "the halves of its heads turn by different angles"
        return cos[:, half:], sin[:, half:]


def rotated(value: Value, facts: Facts) -> tuple[Heads, Rotation] | None:
    """The heads [B, H, S, D] that are turned by their positions, and how."""
    node = value.producer()
    found = None if node is None else match(_ROTATED, node, facts)
    if not isinstance(found, Match):
        return None
    x, first, last = (found.values[name] for name in ("x", "first", "last"))
    if not _halves(x, first, last, facts):
        return None
    heads = heads_of(x, facts)
    rotation = Rotation(found.values["cos"], found.values["sin"], "negative" in found.nodes)
    return None if heads is None else (heads, rotation)


def _halves(x: Value, first: Value, last: Value, facts: Facts) -> bool:
    """Whether two values are the halves of the last of four axes of x."""
    shapes = [facts.shape(value) for value in (x, first, last)]
    if None in shapes or len({shape[-1] for shape in shapes[1:] if shape}) != 1:
        return False
    makers = [value.producer() for value in (first, last)]
    if makers[0] is not None and makers[0] is makers[1]:
        split = makers[0]
        on_last = ir.op(split) == "Split" and ir.attribute(split, "axis", 0) in (3, -1)
        return on_last and split.inputs[0] is x and list(split.outputs) == [first, last]
    half = (shapes[1] or (0,))[-1]
    return _start(makers[0], x, facts) == 0 and _start(makers[1], x, facts) == half


def _start(node: Node | None, x: Value, facts: Facts) -> Dim | None:
    """Where a Slice of the last axis of x, in steps of one, starts."""
    if node is None or ir.op(node) != "Slice" or node.inputs[0] is not x or len(node.inputs) < 4:
        return None
    start, axes, steps = (facts.content(node.inputs[at]) for at in (1, 3, len(node.inputs) - 1))
    if axes not in ((3,), (-1,)) or (len(node.inputs) == 5 and steps != (1,)):
        return None
    return start[0] if start else None


def unshared(value: Value, facts: Facts) -> Value | Heads | None:
    """What [B, G N, S, D] repeats N times each: [B, G, S, D], or the heads that it is made of.

    The value itself where nothing is repeated.
    """
    merge = value.producer()
    if merge is None or ir.op(merge) != "Reshape" or merge.inputs[0] is None:
        return value
    expand = merge.inputs[0].producer()
    if expand is None or ir.op(expand) != "Expand" or expand.inputs[0] is None:
        return value
    wide, whole, source = (facts.shape(v) for v in (expand.outputs[0], value, expand.inputs[0]))
    if wide is None or whole is None or source is None or (len(wide), len(source)) != (5, 5):
        return None
    batch, groups, repeats, rows, size = wide
    if not isinstance(groups, int) or not isinstance(repeats, int):
        return None
    if whole != (batch, groups * repeats, rows, size) or source != (batch, groups, 1, rows, size):
        return None
    return _before_unsqueeze(expand.inputs[0], facts)


def _before_unsqueeze(value: Value, facts: Facts) -> Value | Heads | None:
    node = value.producer()
    if node is not None and ir.op(node) == "Unsqueeze":
        axes = facts.array(node.inputs[1]) if len(node.inputs) > 1 else None
        given = ir.attribute(node, "axes", ()) if axes is None else axes.tolist()
        return node.inputs[0] if [int(a) % 5 for a in given] == [2] else None
    turned = transposed(value, (0, 2, 3, 1, 4))  # what simplify makes of Transpose, Unsqueeze
    return None if turned is None else _reshaped(turned, facts)


def _reshaped(value: Value, facts: Facts) -> Heads | None:
    """The heads that [B, S, G, 1, D] is a Reshape of."""
    node, shape = value.producer(), facts.shape(value)
    if node is None or ir.op(node) != "Reshape" or node.inputs[0] is None or shape is None:
        return None
    source = node.inputs[0]
    before, (groups, _, size) = facts.shape(source), shape[2:]
    if not isinstance(groups, int) or not isinstance(size, int):
        return None
    fits = before == (*shape[:2], groups * size) and facts.dtype(source) == DataType.FLOAT
    return Heads(source, 0, groups, size) if fits else None


def _rows_from_zero(value: Value, length: Dim, facts: Facts) -> Array | None:
    """The constant of which a value is the rows up to `length`."""
    node = value.producer()
    if node is None or ir.op(node) != "Slice" or len(node.inputs) < 4:
        return None
    table = facts.array(node.inputs[0])
    bounds = [facts.content(v) for v in node.inputs[1:]]
    if table is None or table.ndim != 2 or len(bounds) not in (3, 4):
        return None
    fits = bounds[0] == (0,) and bounds[1] == (length,) and bounds[2] in ((0,), (-2,))
    return table if fits and bounds[3:] in ([], [(1,)]) else None


def whole(part: Heads, facts: Facts) -> bool:
    """Whether the heads are all columns of their tensor."""
    shape = facts.shape(part.source)
    return part.first == 0 and shape is not None and shape[-1] == part.width
