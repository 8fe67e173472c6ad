"""The heads of attention: what they are columns of before they are split and turned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxslim import ir
from onnxslim.analyses.facts import Dim, Facts
from onnxslim.ir import DataType, Value


@dataclass(frozen=True)
class Heads:
    """`count` heads of `size` columns of a tensor [B, S, C], from head `first` on."""

    source: Value
    first: int
    count: int
    size: int

    @property
    def width(self) -> int:
        """Columns of all of them."""
        return self.count * self.size


def heads_of(value: Value, facts: Facts, *, turned: bool = False) -> Heads | None:
    """The heads that [B, H, S, D] is made of; [B, H, D, S] where it is `turned`."""
    if turned:
        inner = transposed(value, (0, 1, 3, 2))
        if inner is None:
            return _reshaped(transposed(value, (0, 2, 3, 1)), facts)
        value = inner
    node = value.producer()
    if node is None or ir.op(node) != "Split" or ir.attribute(node, "axis", 0) not in (1, -3):
        return _reshaped(transposed(value, (0, 2, 1, 3)), facts)
    sizes = [(facts.shape(part) or (None, None))[1] for part in node.outputs]
    at, whole = node.outputs.index(value), node.inputs[0]
    heads = None if whole is None else _reshaped(transposed(whole, (0, 2, 1, 3)), facts)
    counts = [size for size in sizes if isinstance(size, int)]
    if heads is None or len(counts) != len(sizes):
        return None
    return Heads(heads.source, sum(counts[:at]), counts[at], heads.size)


def transposed(value: Value, perm: tuple[int, ...]) -> Value | None:
    """What a value is the Transpose of, by these axes."""
    node = value.producer()
    if node is None or ir.op(node) != "Transpose" or ir.attribute(node, "perm") != perm:
        return None
    return node.inputs[0]


def _reshaped(value: Value | None, facts: Facts) -> Heads | None:
    """The tensor [B, S, H D] that [B, S, H, D] is a Reshape of."""
    node = None if value is None else value.producer()
    if value is None or node is None or ir.op(node) != "Reshape":
        return None
    source, shape = node.inputs[0], facts.shape(value)
    before = facts.shape(source)
    if source is None or shape is None or before is None or (len(before), len(shape)) != (3, 4):
        return None
    count, size = shape[2:]
    if not isinstance(count, int) or not isinstance(size, int):
        return None
    fits = before == (*shape[:2], count * size) and facts.dtype(source) == DataType.FLOAT
    return Heads(source, 0, count, size) if fits else None


def columns_of(part: Heads, facts: Facts) -> Dim | None:
    """How many columns the whole tensor has, C."""
    return (facts.shape(part.source) or (None,))[-1]


def rows_of(source: Value, facts: Facts) -> tuple[Dim, ...]:
    """Batch and positions of a tensor of three axes, [B, S]."""
    return (facts.shape(source) or ())[:2]


def tile(parts: Sequence[Heads], facts: Facts) -> bool:
    """Whether the parts, in this order, are all columns of one tensor."""
    first = parts[0]
    starts = [part.first for part in parts] == [0, first.count, 2 * first.count]
    same = all(p.source is first.source and p.size == first.size for p in parts)
    return starts and same and sum(part.width for part in parts) == columns_of(first, facts)
