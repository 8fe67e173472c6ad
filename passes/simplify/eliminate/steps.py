"""A layout as operators: at most Reshape, Transpose, Reshape, with constants only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from onnxslim.ir import Editor, Node, Value
from onnxslim.passes.simplify.eliminate.layout import Axes, Layout, runs
from onnxslim.passes.simplify.eliminate.sizes import NONE, Sizes, constant_target


@dataclass(frozen=True)
class Step:
    """A Reshape to a constant shape or a Transpose."""

    operator: str
    numbers: tuple[int, ...]  # the shape or the order


def steps_of(layout: Layout, nonzero: Sizes = NONE) -> list[Step] | None:
    """The fewest operators that do what the layout says; None where no constant shape does."""
    if layout.is_identity:
        return []
    if layout.is_flat:
        return _reshape(layout, layout.source, layout.result, nonzero)
    forms = (_through(layout, cut, nonzero) for cut in dict.fromkeys(_cuts(layout)))
    return next((form for form in forms if form is not None), None)


def _cuts(layout: Layout) -> Iterator[Axes]:
    """Shapes for the Transpose to start from, those that need the fewest operators first."""
    yield layout.source
    yield tuple(sorted((axis for axis in layout.result if axis), key=min))
    yield _with_ones(layout)
    blocks = tuple(sorted(runs(layout)))
    yield blocks
    yield _split_at(blocks, layout.source)
    yield _split_at(blocks, layout.result)
    yield tuple((atom,) for atom in range(len(layout.atoms)))


def _with_ones(layout: Layout) -> Axes:
    """The axes of the result in the order of the source; axes of size one follow the one before."""
    keyed: list[tuple[int, int, tuple[int, ...]]] = []
    last = -1
    for index, axis in enumerate(layout.result):
        last = min(axis) if axis else last
        keyed.append((last, index, axis))
    return tuple(axis for _, _, axis in sorted(keyed))


def _split_at(blocks: Axes, axes: Axes) -> Axes:
    ends = {axis[0] for axis in axes if axis}
    pieces: list[list[int]] = []
    for block in blocks:
        for position, atom in enumerate(block):
            if position == 0 or atom in ends:
                pieces.append([])
            pieces[-1].append(atom)
    return tuple(tuple(piece) for piece in pieces)


def _through(layout: Layout, cut: Axes, nonzero: Sizes) -> list[Step] | None:
    """Reshape to the cut where needed, Transpose, Reshape to the result where needed."""
    if [atom for axis in cut for atom in axis] != sorted(layout.order):
        return None
    perm = _permutation(layout, cut)
    if perm is None:
        return None
    turned = tuple(cut[axis] for axis in perm)
    first = _reshape(layout, layout.source, cut, nonzero)
    last = _reshape(layout, turned, layout.result, nonzero)
    if first is None or last is None:
        return None
    return [*first, Step("Transpose", perm), *last]


def _permutation(layout: Layout, cut: Axes) -> tuple[int, ...] | None:
    """The order of the cut's axes in the result; None where one does not stay together."""
    place = {atom: position for position, atom in enumerate(layout.order)}
    if any(place[b] != place[a] + 1 for axis in cut for a, b in pairwise(axis)):
        return None
    same = _ones_as_in_result(layout, cut)
    if same is not None:
        return same
    last, keyed = -1, list[tuple[int, int]]()
    for index, axis in enumerate(cut):
        last = place[axis[0]] if axis else last
        keyed.append((last, index))
    return tuple(index for _, index in sorted(keyed))


def _ones_as_in_result(layout: Layout, cut: Axes) -> tuple[int, ...] | None:
    """The permutation that gives the result without a Reshape, if there is one."""
    if sorted(cut) != sorted(layout.result):
        return None
    ones = iter([index for index, axis in enumerate(cut) if not axis])
    index_of = {axis: index for index, axis in enumerate(cut) if axis}
    return tuple(index_of[axis] if axis else next(ones) for axis in layout.result)


def _reshape(layout: Layout, before: Axes, after: Axes, nonzero: Sizes) -> list[Step] | None:
    if before == after:
        return []
    shapes = [Layout(layout.atoms, layout.source, axes).after for axes in (before, after)]
    target = constant_target(shapes[0], shapes[1], nonzero)
    return None if target is None else [Step("Reshape", target)]


def build(editor: Editor, x: Value, steps: Sequence[Step], like: Node, hint: str) -> list[Node]:
    """New nodes, in no graph yet, that take the steps one after the other."""
    made: list[Node] = []
    for step in steps:
        if step.operator == "Reshape":
            shape = np.asarray(step.numbers, np.int64)
            inputs = [x, editor.initializer(editor.scope_of(like), f"{hint}_shape", shape)]
            node = editor.node("Reshape", inputs, outputs=[hint], like=like)
        else:
            perm = list(step.numbers)
            node = editor.node(
                "Transpose", [x], outputs=[hint], attributes={"perm": perm}, like=like
            )
        made.append(node)
        x = node.outputs[0]
    return made
