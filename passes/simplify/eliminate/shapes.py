"""Shapes that are computed become constants, or are computed in the shortest way.

Reshape(x, computed) -> Reshape(x, constant with 0 and -1)
Expand whose readers broadcast anyway -> its input
shape arithmetic -> Concat(Shape(input), constants)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Dim, Facts
from onnxslim.analyses.facts.dims import broadcast
from onnxslim.ir import Editor, Node, Value
from onnxslim.passes.simplify.eliminate.common import (
    given,
    has_references,
    is_private,
    readers,
    removal,
)
from onnxslim.passes.simplify.eliminate.rowwise import BINARY
from onnxslim.passes.simplify.eliminate.sizes import Shape, constant_target
from onnxslim.passes.simplify.eliminate.views import nonzero_sizes
from onnxslim.rewrite import Rewrite, Rule

_SHAPE_WITH_BOUNDS = 15  # the opset since which Shape takes a start and an end

SHAPE_INPUTS: dict[str, int] = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1}
"""Operators and the input that is a shape."""


def _match_reshape(node: Node, facts: Facts) -> Rewrite | str | None:
    value = given(node, 1)
    if value is None or ir.constant(value) is not None or has_references(node):
        return None
    before, after = facts.shape(node.inputs[0]), facts.shape(node.outputs[0])
    if after is None or 0 in after or ir.attribute(node, "allowzero", 0):
        return "its shape is not known, or has zeros that stay"
    target = constant_target(before or (), after, nonzero_sizes(node, facts))
    if target is None:
        return "no constant shape says it: several sizes are unknown"
    return lambda editor: _set_input(editor, node, 1, np.asarray(target, np.int64))


def _set_input(editor: Editor, node: Node, index: int, content: ir.Array) -> Sequence[Node]:
    value = node.inputs[index]
    before = None if value is None else value.producer()
    hint = f"{node.outputs[0].name}_shape"
    editor.rewire([(node, index)], editor.initializer(editor.scope_of(node), hint, content))
    return [node] if before is None else [node, before]


def _expand(node: Node, facts: Facts) -> Value | str | None:
    """The input, where all readers make the same shape of it."""
    x, output = node.inputs[0], node.outputs[0]
    if x is None or output.is_graph_output() or not readers(output):
        return None
    for reader in readers(output):
        if ir.op(reader) not in BINARY | {"Where"} or "axis" in reader.attributes:
            return f"{ir.label(reader)!r} does not broadcast"
        shapes = [facts.shape(x if value is output else value) for value in reader.inputs]
        made = _broadcast([shape for shape in shapes if shape is not None])
        if None in shapes or made is None or made != facts.shape(reader.outputs[0]):
            return f"{ir.label(reader)!r} may need the wider shape"
    return x


def _broadcast(shapes: Sequence[Shape]) -> Shape | None:
    rank = max(map(len, shapes), default=0)
    wide = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    sizes = [broadcast(column) for column in zip(*wide, strict=True)]
    known = tuple(size for size in sizes if size is not None)
    return known if len(known) == rank else None


def _match_arithmetic(node: Node, facts: Facts) -> Rewrite | str | None:
    index = SHAPE_INPUTS[ir.op(node)]
    value = given(node, index)
    if value is None or ir.constant(value) is not None or facts.opset(node) < _SHAPE_WITH_BOUNDS:
        return None
    content = facts.content(value)
    if content is None or facts.rank(value) != 1:
        return None
    runs = _runs(content, facts)
    if runs is None:
        return "a size in it is not that of an input"
    cost = sum(not isinstance(run, list) for run in runs) + (len(runs) > 1)
    if cost >= _private_nodes(value, node):
        return None
    return lambda editor: _rebuild(editor, node, index, runs)


def _runs(content: Sequence[Dim], facts: Facts) -> list[list[int] | tuple[Value, int, int]] | None:
    """The content as constants, and as axes start:end of the model's inputs."""
    found: list[list[int] | tuple[Value, int, int]] = []
    for size in content:
        last = found[-1] if found else None
        if isinstance(size, int):
            if not isinstance(last, list):
                found.append([])
            found[-1] = [*found[-1], size] if isinstance(found[-1], list) else [size]
            continue
        if isinstance(last, tuple) and _is_next(last, size, facts):
            found[-1] = (last[0], last[1], last[2] + 1)
            continue
        place = _place(size, facts)
        if place is None:
            return None
        found.append((place[0], place[1], place[1] + 1))
    return found


def _is_next(run: tuple[Value, int, int], size: Dim, facts: Facts) -> bool:
    shape = facts.shape(run[0]) or ()
    return run[2] < len(shape) and shape[run[2]] == size


def _place(size: Dim, facts: Facts) -> tuple[Value, int] | None:
    for value in facts.model.graph.inputs:
        for axis, other in enumerate(facts.shape(value) or ()):
            if other == size and ir.constant(value) is None:
                return value, axis
    return None


def _private_nodes(value: Value, reader: Node) -> int:
    """How many nodes go away when the reader no longer reads the value."""
    count, todo = 0, [(value, reader)]
    while todo:
        value, reader = todo.pop()
        producer = value.producer()
        if producer is not None and is_private(value, reader) and ir.op(producer) != "Constant":
            count += 1
            todo += [(v, producer) for v in producer.inputs if v is not None]
    return count


def _rebuild(
    editor: Editor, node: Node, index: int, runs: Sequence[list[int] | tuple[Value, int, int]]
) -> Sequence[Node]:
    hint, scope = f"{node.outputs[0].name}_shape", editor.scope_of(node)
    made: list[Node] = []
    pieces: list[Value] = []
    for run in runs:
        if isinstance(run, list):
            pieces.append(editor.initializer(scope, hint, np.asarray(run, np.int64)))
            continue
        bounds = {"start": run[1], "end": run[2]}
        made.append(editor.node("Shape", [run[0]], outputs=[hint], attributes=bounds, like=node))
        pieces.append(made[-1].outputs[0])
    if len(pieces) > 1:
        made.append(editor.node("Concat", pieces, outputs=[hint], attributes={"axis": 0}))
        pieces = [made[-1].outputs[0]]
    value = node.inputs[index]
    before = None if value is None else value.producer()
    editor.insert_before(node, made)
    editor.rewire([(node, index)], pieces[0])
    return [*made, node, *([before] if before is not None else [])]


RULES: tuple[Rule, ...] = (
    Rule(
        "reshape-to-constant",
        frozenset({"Reshape"}),
        _match_reshape,
        "Reshape(x, computed) -> Reshape(x, constant with 0 and -1)",
    ),
    removal(
        "expand-before-broadcast",
        ["Expand"],
        _expand,
        "Expand whose readers broadcast anyway -> its input",
    ),
    Rule(
        "shape-arithmetic",
        frozenset(SHAPE_INPUTS),
        _match_arithmetic,
        "shape arithmetic -> Concat(Shape(input), constants)",
    ),
)
