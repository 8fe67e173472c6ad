"""Slices of slices become one; parts that Concat puts together again are gathered at once.

Slice(Slice(x)) -> Slice(x)
Concat of all parts of a Split or of Slices, in their order -> x
Concat of parts in another order (a roll) -> Gather(x, indices)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Dim, Facts
from onnxslim.ir import Editor, Node, Value
from onnxslim.passes.simplify.eliminate.common import (
    bypass,
    given,
    has_references,
    integers,
    is_absent,
    is_private,
    readers,
)
from onnxslim.rewrite import Rewrite, Rule

_SLICE_WITH_INPUTS = 10
_MOST_INDICES = 4096  # more of them would be a weight of their own
_LEAST_BLOCK = 16  # elements; Gather copies block by block


@dataclass(frozen=True)
class Bounds:
    """What a Slice takes of an axis, as in Python."""

    start: int
    end: int
    step: int


def bounds_of(node: Node, facts: Facts) -> dict[int, Bounds] | None:
    """Axis -> bounds of a Slice with constant bounds."""
    if ir.op(node) != "Slice" or has_references(node):
        return None
    rank = facts.rank(given(node, 0))
    starts, ends = integers(node, facts, "starts", 1), integers(node, facts, "ends", 2)
    if rank is None or starts is None or ends is None:
        return None
    axes, steps = integers(node, facts, "axes", 3), integers(node, facts, "steps", 4)
    if axes is None and is_absent(node, "axes", 3):
        axes = tuple(range(len(starts)))
    if steps is None and is_absent(node, "steps", 4):
        steps = (1,) * len(starts)
    if axes is None or steps is None or 0 in steps:
        return None
    if not len(axes) == len(steps) == len(starts) == len(ends):
        return None
    found = zip(axes, starts, ends, steps, strict=True)
    return {axis % rank: Bounds(*rest) for axis, *rest in found if -rank <= axis < rank}


def _match_slice(node: Node, facts: Facts) -> Rewrite | str | None:
    inner = node.inputs[0].producer() if node.inputs[0] is not None else None
    if inner is None or ir.op(inner) != "Slice" or facts.opset(node) < _SLICE_WITH_INPUTS:
        return None
    first, second = bounds_of(inner, facts), bounds_of(node, facts)
    x = given(inner, 0)
    if first is None or second is None or x is None:
        return "its bounds are computed"
    merged = _merged(first, second, facts.shape(x) or ())
    if merged is None:
        return "both take parts of an axis of unknown size"
    others = [n for n in readers(inner.outputs[0]) if n is not node]
    if inner.outputs[0].is_graph_output() or any(ir.op(n) != "Slice" for n in others):
        return f"the output of {ir.label(inner)!r} is read elsewhere too"
    return lambda editor: _replace_slice(editor, node, x, merged)


def _merged(
    first: dict[int, Bounds], second: dict[int, Bounds], shape: Sequence[object]
) -> dict[int, Bounds] | None:
    merged = dict(first)
    for axis, outer in second.items():
        inner = first.get(axis)
        if inner is None:
            merged[axis] = outer
            continue
        size = shape[axis] if axis < len(shape) else None
        if not isinstance(size, int) or inner.step < 1 or outer.step < 1:
            return None
        both = range(size)[inner.start : inner.end : inner.step][
            outer.start : outer.end : outer.step
        ]
        merged[axis] = Bounds(both.start, both.stop, both.step)
    return merged


def _replace_slice(
    editor: Editor, node: Node, x: Value, bounds: dict[int, Bounds]
) -> Sequence[Node]:
    hint, axes = str(node.outputs[0].name), sorted(bounds)
    columns = {
        "starts": [bounds[axis].start for axis in axes],
        "ends": [bounds[axis].end for axis in axes],
        "axes": axes,
        "steps": [bounds[axis].step for axis in axes],
    }
    scope = editor.scope_of(node)
    inputs = [
        editor.initializer(scope, f"{hint}_{name}", np.asarray(numbers, np.int64))
        for name, numbers in columns.items()
    ]
    made = editor.node("Slice", [x, *inputs], outputs=[hint], like=node)
    editor.replace_node(node, [made], [made.outputs[0]])
    return [made]


@dataclass(frozen=True)
class _Part:
    """The elements start:end of one axis of x."""

    x: Value
    start: int
    end: int
    size: int  # of the axis
    private: bool  # nothing else reads it


def _part(value: Value, axis: int, reader: Node, facts: Facts) -> _Part | None:
    node = value.producer()
    if node is None or has_references(node):
        return None
    x, alone = given(node, 0), is_private(value, reader)
    shape = facts.shape(x)
    size = shape[axis] if shape is not None and axis < len(shape) else None
    if x is None or not isinstance(size, int):
        return None
    if ir.op(node) == "Split":
        own = all(not output.uses() or is_private(output, reader) for output in node.outputs)
        return _split_part(node, value, _Part(x, 0, 0, size, own), axis, facts)
    bounds = bounds_of(node, facts)
    if bounds is None or set(bounds) != {axis} or bounds[axis].step != 1:
        return None
    taken = range(size)[bounds[axis].start : bounds[axis].end]
    return _Part(x, taken.start, taken.stop, size, alone) if len(taken) else None


def _split_part(node: Node, value: Value, whole: _Part, axis: int, facts: Facts) -> _Part | None:
    rank = facts.rank(whole.x)
    if rank is None or int(ir.attribute(node, "axis", 0)) % rank != axis:
        return None
    start = 0
    for output in node.outputs:
        shape = facts.shape(output)
        length = shape[axis] if shape is not None and axis < len(shape) else None
        if not isinstance(length, int):
            return None
        if output is value:
            return replace(whole, start=start, end=start + length) if length else None
        start += length
    return None


def _match_concat(node: Node, facts: Facts) -> Rewrite | str | None:
    values = [value for value in node.inputs if value is not None]
    first = values[0].producer() if len(values) > 1 else None
    if first is None or ir.op(first) not in ("Slice", "Split") or has_references(node):
        return None
    rank = facts.rank(values[0])
    axis = int(ir.attribute(node, "axis", 1))
    if rank is None or not -rank <= axis < rank:
        return None
    found = [_part(value, axis % rank, node, facts) for value in values]
    parts = [part for part in found if part is not None]
    if len(parts) < len(found) or any(part.x is not parts[0].x for part in parts):
        return "not all of it are parts of one tensor along the axis"
    x, size = parts[0].x, parts[0].size
    indices = np.concatenate([np.arange(part.start, part.end) for part in parts])
    if np.array_equal(indices, np.arange(size)):
        return lambda editor: bypass(editor, node, x)
    if not any(part.private for part in parts):
        return "its parts are read elsewhere too"
    if indices.size > _MOST_INDICES:
        return f"it would take {indices.size} indices"
    if _block(facts.shape(x), axis % rank) < _LEAST_BLOCK:
        return "its parts lie too scattered: a Gather would be slower"
    return lambda editor: _replace_concat(editor, node, x, axis % rank, indices)


def _block(shape: Sequence[Dim] | None, axis: int) -> int:
    """How many elements lie together at each index of an axis, at least."""
    return prod(size for size in (shape or ())[axis + 1 :] if isinstance(size, int))


def _replace_concat(
    editor: Editor, node: Node, x: Value, axis: int, indices: ir.Array
) -> Sequence[Node]:
    hint = str(node.outputs[0].name)
    content = editor.initializer(editor.scope_of(node), f"{hint}_indices", indices.astype(np.int64))
    made = editor.node("Gather", [x, content], outputs=[hint], attributes={"axis": axis}, like=node)
    editor.replace_node(node, [made], [made.outputs[0]])
    return [made]


def _match_nested_concat(node: Node, facts: Facts) -> Rewrite | str | None:
    rank, axis = facts.rank(node.outputs[0]), ir.attribute(node, "axis")
    if axis is None:
        return None
    inputs: list[Value | None] = []
    for value in node.inputs:
        inner = None if value is None else value.producer()
        same = inner is not None and ir.op(inner) == "Concat" and not has_references(inner)
        if inner is None or value is None or not same or not is_private(value, node):
            inputs.append(value)
        elif ir.attribute(inner, "axis") == axis or (
            rank is not None and ir.attribute(inner, "axis", 0) % rank == axis % rank
        ):
            inputs.extend(inner.inputs)
        else:
            inputs.append(value)
    if len(inputs) == len(node.inputs):
        return None
    return lambda editor: _replace_nested(editor, node, inputs)


def _replace_nested(editor: Editor, node: Node, inputs: Sequence[Value | None]) -> Sequence[Node]:
    hint, axis = str(node.outputs[0].name), int(ir.attribute(node, "axis"))
    made = editor.node("Concat", inputs, outputs=[hint], attributes={"axis": axis}, like=node)
    editor.replace_node(node, [made], [made.outputs[0]])
    return [made]


RULES: tuple[Rule, ...] = (
    Rule("slice-of-slice", frozenset({"Slice"}), _match_slice, "Slice(Slice(x)) -> Slice(x)"),
    Rule(
        "concat-of-parts",
        frozenset({"Concat"}),
        _match_concat,
        "Concat of Slices or Split of x -> x, or Gather(x, indices)",
    ),
    Rule(
        "concat-of-concat",
        frozenset({"Concat"}),
        _match_nested_concat,
        "Concat(Concat(x, y), z) -> Concat(x, y, z)",
    ),
)
