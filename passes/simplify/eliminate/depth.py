"""Every n-th element along some axes, put together along another: space to depth.

Concat(x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])
    -> Reshape, Transpose, Reshape
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from math import prod

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Node, Value
from onnxslim.passes.simplify.eliminate.common import given, has_references, is_private
from onnxslim.passes.simplify.eliminate.layout import Layout, reshaped, transposed
from onnxslim.passes.simplify.eliminate.sizes import Shape
from onnxslim.passes.simplify.eliminate.slices import bounds_of
from onnxslim.passes.simplify.eliminate.steps import steps_of
from onnxslim.passes.simplify.eliminate.views import replace_chain
from onnxslim.rewrite import Rewrite, Rule

_RESHAPE_WITH_INPUT = 5


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    slices = [None if value is None else value.producer() for value in node.inputs]
    first = slices[0] if slices else None
    x = None if first is None else given(first, 0)
    shape = facts.shape(x)
    if first is None or x is None or ir.op(first) != "Slice" or has_references(node):
        return None
    if shape is None or facts.opset(node) < _RESHAPE_WITH_INPUT:
        return None
    axis = int(ir.attribute(node, "axis", 1)) % len(shape)
    steps = _steps_along(first, facts)
    if steps is None or axis in steps:
        return None
    starts = [_starts(part, x, steps, shape, facts) for part in slices]
    order = _order(starts, steps)
    if order is None:
        return "its parts are not every n-th element each, in order"
    layout = _layout(shape, steps, order, axis)
    found = None if layout is None else steps_of(layout)
    if found is None:
        return "no constant shape says it: several sizes are unknown"
    own = sum(value is not None and is_private(value, node) for value in node.inputs)
    if len(found) > own:
        return "its parts are read elsewhere too"
    return lambda editor: replace_chain(editor, node, x, found)


def _steps_along(node: Node, facts: Facts) -> dict[int, int] | None:
    bounds = bounds_of(node, facts)
    if not bounds or any(b.step < 2 for b in bounds.values()):
        return None
    return {axis: bounds[axis].step for axis in sorted(bounds)}


def _starts(
    node: Node | None, x: Value, steps: dict[int, int], shape: Shape, facts: Facts
) -> tuple[int, ...] | None:
    """Where a Slice begins along each axis; None if it is no n-th of x."""
    if node is None or given(node, 0) is not x or _steps_along(node, facts) != steps:
        return None
    bounds, starts = bounds_of(node, facts) or {}, list[int]()
    for axis, step in steps.items():
        size = shape[axis]
        if not isinstance(size, int) or size % step:
            return None
        taken = range(size)[bounds[axis].start : bounds[axis].end : step]
        if len(taken) != size // step:
            return None
        starts.append(taken.start)
    return tuple(starts)


def _order(
    starts: Sequence[tuple[int, ...] | None], steps: dict[int, int]
) -> tuple[int, ...] | None:
    """The axes, slowest first, in whose order the parts come."""
    places = range(len(steps))
    for order in permutations(places):
        counts = list(steps.values())
        rows = product(*(range(counts[place]) for place in order))
        expected = [tuple(row[order.index(place)] for place in places) for row in rows]
        if expected == starts:
            return tuple(list(steps)[place] for place in order)
    return None


def _layout(
    shape: Shape, steps: dict[int, int], order: tuple[int, ...], axis: int
) -> Layout | None:
    """First split the sizes by the steps, then put the steps before the axis of the Concat."""
    place: list[int] = []
    split: Shape = ()
    for index, size in enumerate(shape):
        place.append(len(split))
        step = steps.get(index)
        split += (size,) if step is None or not isinstance(size, int) else (size // step, step)
    perm: list[int] = []
    for index in range(len(shape)):
        if index == axis:
            perm += [place[other] + 1 for other in order]
        perm.append(place[index])
    first, turned = reshaped(shape, split), transposed(split, perm)
    if first is None or turned is None:
        return None
    last = reshaped(turned.after, _final(shape, steps, axis))
    whole = first.then(turned)
    return None if whole is None or last is None else whole.then(last)


def _final(shape: Shape, steps: dict[int, int], axis: int) -> Shape:
    made: Shape = ()
    for index, size in enumerate(shape):
        if index == axis:
            made += (size * prod(steps.values()),)
        elif index in steps and isinstance(size, int):
            made += (size // steps[index],)
        else:
            made += (size,)
    return made


RULES: tuple[Rule, ...] = (
    Rule(
        "slices-to-depth",
        frozenset({"Concat"}),
        _match,
        "Concat of every n-th element each -> Reshape, Transpose, Reshape",
    ),
)
