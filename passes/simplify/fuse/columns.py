"""Which columns of a weight the elements of a tensor come from, through views of the output.

y = x @ W has its columns on the last axis. A Reshape splits that axis into digits, a Transpose
moves them, a Gather, Slice or Split picks some. Each axis that is a digit holds what its indices
add to the number of the column; an element's column is the sum over the axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Dim, Facts
from onnxslim.ir import Array, Node, Value
from onnxslim.passes.simplify.fuse.axes import axes_of

Digits = tuple["Array | None", ...]


@dataclass(frozen=True)
class Columns:
    """Digits by axis (None where an axis says nothing of the column), or only the set of all."""

    digits: Digits | None  # None: the axes are mixed
    start: int = 0  # added to all digits
    mixed: frozenset[int] = frozenset()

    def all(self) -> frozenset[int]:
        """The columns that occur."""
        if self.digits is None:
            return self.mixed
        return frozenset(int(c) for c in np.unique(self.grid()))

    def grid(self) -> Array:
        """The column of each element, in the rank of the tensor: 1 where an axis says nothing."""
        digits = self.digits or ()
        total: Array = np.full((1,) * len(digits), self.start, np.int64)
        for axis, digit in enumerate(digits):
            if digit is not None:
                total = total + digit.reshape([-1 if i == axis else 1 for i in range(len(digits))])
        return total


def columns_of(rank: int, count: int) -> Columns:
    """Those of the output of a layer."""
    return Columns((*(None,) * (rank - 1), np.arange(count)))


def through(node: Node, output: Value, before: Columns, facts: Facts) -> Columns | str:
    """The columns of an output of a view, from those of its input; or why they are lost."""
    step = _STEPS.get(ir.op(node))
    if step is None:
        return f"{ir.op(node)} is no view"
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return "it takes attributes from its function"
    return step(node, output, before, facts)


def is_view(node: Node) -> bool:
    """Whether columns can be followed through a node."""
    return ir.op(node) in _STEPS


def _transpose(node: Node, output: Value, before: Columns, facts: Facts) -> Columns | str:
    if before.digits is None:
        return before
    rank = len(before.digits)
    perm = ir.attribute(node, "perm", None) or tuple(reversed(range(rank)))
    return Columns(tuple(before.digits[int(axis)] for axis in perm), before.start)


def _unsqueeze(node: Node, output: Value, before: Columns, facts: Facts) -> Columns | str:
    if before.digits is None:
        return before
    rank = facts.rank(output)
    axes = None if rank is None else axes_of(node, rank)
    if axes is None or rank is None:
        return "its axes are not known"
    rest = iter(before.digits)
    return Columns(tuple(None if i in axes else next(rest) for i in range(rank)), before.start)


def _squeeze(node: Node, output: Value, before: Columns, facts: Facts) -> Columns | str:
    if before.digits is None:
        return before
    axes = axes_of(node, len(before.digits))
    if axes is None:
        return "its axes are not known"
    start = before.start + sum(int(d[0]) for i in axes if (d := before.digits[i]) is not None)
    return Columns(tuple(d for i, d in enumerate(before.digits) if i not in axes), start)


def _gather(node: Node, output: Value, before: Columns, facts: Facts) -> Columns | str:
    indices = ir.array(node.inputs[1])
    if before.digits is None or indices is None or indices.ndim > 1:
        return "it picks from mixed axes, or its indices are no constant list"
    axis = int(ir.attribute(node, "axis", 0)) % len(before.digits)
    digit = before.digits[axis]
    if digit is None:
        kept = (None,) * indices.ndim
        return Columns((*before.digits[:axis], *kept, *before.digits[axis + 1 :]), before.start)
    if indices.size and not -len(digit) <= indices.min() <= indices.max() < len(digit):
        return "it picks what is not there"
    picked = digit[indices]
    if indices.ndim == 1:
        return _with(before, axis, picked)
    rest = (*before.digits[:axis], *before.digits[axis + 1 :])
    return Columns(rest, before.start + int(picked))


def _slice(node: Node, output: Value, before: Columns, facts: Facts) -> Columns | str:
    if before.digits is None:
        return "it picks from mixed axes"
    given = [ir.array(v) if v is not None else None for v in node.inputs[1:5]]
    if len(given) < 2 or any(a is None for a in given) or len(given) != len(node.inputs) - 1:
        return "its bounds are not constant"
    lists = [[int(i) for i in a.ravel()] for a in given if a is not None]
    starts, ends = lists[0], lists[1]
    axes = lists[2] if len(lists) > 2 else list(range(len(starts)))
    steps = lists[3] if len(lists) > 3 else [1] * len(starts)
    found = before
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        digits = found.digits or ()
        digit = digits[axis % len(digits)]
        if digit is None:
            continue
        if step <= 0:
            return "it goes backwards"
        found = _with(found, axis % len(digits), digit[start:end:step])
    return found


def _split(node: Node, output: Value, before: Columns, facts: Facts) -> Columns | str:
    if before.digits is None:
        return "it picks from mixed axes"
    axis = int(ir.attribute(node, "axis", 0)) % len(before.digits)
    digit = before.digits[axis]
    if digit is None:
        return before
    sizes = ir.attribute(node, "split", None)
    given = ir.array(node.inputs[1]) if len(node.inputs) > 1 else None
    if sizes is None and given is not None:
        sizes = [int(size) for size in given.ravel()]
    if sizes is None and len(digit) % len(node.outputs) == 0:
        sizes = [len(digit) // len(node.outputs)] * len(node.outputs)
    if sizes is None:
        return "its sizes are not known"
    index = node.outputs.index(output)
    start = sum(sizes[:index])
    return _with(before, axis, digit[start : start + sizes[index]])


def _with(before: Columns, axis: int, digit: Array) -> Columns:
    digits = before.digits or ()
    return Columns((*digits[:axis], digit, *digits[axis + 1 :]), before.start)


def _reshape(node: Node, output: Value, before: Columns, facts: Facts) -> Columns | str:
    """Axes are matched from both ends; a split of one digit gives digits, all else mixes."""
    if before.digits is None:
        return before
    old, new = facts.shape(node.inputs[0]), facts.shape(output)
    if old is None or new is None:
        return Columns(None, mixed=before.all())
    digits = _split_digits(old, new, before.digits)
    return Columns(None, mixed=before.all()) if digits is None else Columns(digits, before.start)


def _split_digits(
    old: Sequence[Dim], new: Sequence[Dim], digits: Digits
) -> tuple[Array | None, ...] | None:
    """Digits of the new axes: equal axes at the front, then groups of equal product from the end.

    None where a digit would share an axis with another or with one that says nothing.
    """
    front = 0
    while front < min(len(old), len(new)) and old[front] == new[front]:
        front += 1
    i, j = len(old), len(new)
    found: list[Array | None] = []
    while i > front and _says_something(digits, front, i):
        size, parts = old[i - 1], 1
        first = j
        while first > front and parts != size and isinstance(d := new[first - 1], int):
            parts *= d
            first -= 1
        if isinstance(size, int) and (parts != size or (first == j and size != 1)):
            return None
        if not isinstance(size, int):
            if j == front or new[j - 1] != size:
                return None
            first = j - 1
        parted = _parts(digits[i - 1], new[first:j])
        if parted is None:
            return None
        found = [*parted, *found]
        i, j = i - 1, first
    rest: list[Array | None] = [None] * (j - front)
    return (*digits[:front], *rest, *found)


def _says_something(digits: Digits, front: int, end: int) -> bool:
    """Whether an axis between the two says something of the column."""
    return any(digit is not None for digit in digits[front:end])


def _parts(digit: Array | None, sizes: Sequence[Dim]) -> list[Array | None] | None:
    """A digit split into mixed-radix digits: what the indices of each new axis add.

    None where no such numbers exist, as after a Gather in any order.
    """
    numbers = [size for size in sizes if isinstance(size, int)]
    if digit is None or len(numbers) != len(sizes):
        return [None] * len(sizes)
    cube: Array = digit.reshape(numbers)
    if not cube.size or not cube.ndim:
        return None
    origin, total = cube.ravel()[0], np.zeros((), np.int64)
    found: list[Array | None] = []
    for axis in range(cube.ndim):
        line = cube[tuple(slice(None) if i == axis else 0 for i in range(cube.ndim))]
        line = line - (origin if axis else 0)
        found.append(line)
        total = total + line.reshape([-1 if i == axis else 1 for i in range(cube.ndim)])
    return found if (total == cube).all() else None


_Step = Callable[[Node, Value, Columns, Facts], "Columns | str"]
_STEPS: dict[str, _Step] = {
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Reshape": _reshape,
    "Flatten": _reshape,
}
