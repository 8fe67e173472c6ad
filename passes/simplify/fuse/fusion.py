"""Rules as tables: patterns, a check, and the one operator that replaces what they match."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Array, DataType, Editor, Node, Value
from onnxslim.rewrite import Rewrite, Rule
from onnxslim.rewrite.pattern import Match, Op, match_any

TYPES = (DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16)
"""Of what is fused. Runtimes lack kernels for double, or compute in float (LayerNormalization)."""


@dataclass(frozen=True)
class Made:
    """One node in the place of many; arrays among the inputs become initializers."""

    op: str
    inputs: tuple[Value | Array | None, ...]
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])


Make = Callable[[Match, Facts], "tuple[Made, ...] | str"]
"""The new nodes, each reading the one before where an input is `BEFORE`; or what is against it."""

BEFORE: Array = np.zeros(0)
"""Stands for the output of the node before, among the inputs of a `Made`."""


def fusion(
    name: str,
    patterns: Sequence[Op],
    make: Make,
    *,
    summary: str,
    makes: str = "",
    since: int = 1,
    until: int | None = None,
    like: str = "x",
) -> Rule:
    """A rule anchored at the roots of the patterns, for models of opset `since` up to `until`.

    Numbers of the pattern must not change the shape of `like`, the value that it is a map of.
    """
    table = tuple(patterns)

    def find(node: Node, facts: Facts) -> Rewrite | str | None:
        version = facts.opset(node)
        if until is not None and version >= until:
            return None
        found = match_any(table, node, facts)
        if not isinstance(found, Match):
            return found
        if version < since:
            return f"{makes or name} needs opset {since}; the model has {version}"
        reason = _wrong_type(found, facts, like) or _changes_shape(found, facts, like)
        made = reason or make(found, facts)
        return made if isinstance(made, str) else lambda editor: put(editor, node, made)

    ops = frozenset(pattern.op for pattern in table)
    return Rule(name, ops, find, summary, exact=False, makes=makes)


def _wrong_type(found: Match, facts: Facts, like: str) -> str | None:
    """Numbers of the pattern are of the type of its value, so that either tells."""
    dtype = facts.dtype(found.values.get(like))
    for value in found.values.values():
        tensor = ir.constant(value)
        if dtype is None and tensor is not None and tensor.dtype.is_floating_point():
            dtype = tensor.dtype
    return None if dtype in TYPES else f"its type is {'unknown' if dtype is None else dtype.name}"


def _changes_shape(found: Match, facts: Facts, like: str) -> str | None:
    """Why the numbers of a match may broadcast its value to another shape."""
    value = found.values.get(like)
    rank = facts.rank(value)
    for other in found.values.values():
        tensor = ir.constant(other)
        if tensor is None or tensor.size != 1 or other is value or not len(tensor.shape):
            continue
        if not tensor.dtype.is_floating_point():
            continue
        if rank is None or len(tensor.shape) > rank:
            return f"'{other.name}' of rank {len(tensor.shape)} may change the shape"
    return None


def put(editor: Editor, root: Node, made: Sequence[Made]) -> Sequence[Node]:
    """Put the chain of nodes in the place of the root; the last takes its name."""
    scope, result = editor.scope_of(root), str(root.outputs[0].name)
    nodes: list[Node] = []
    for spec in made:
        inputs: list[Value | None] = []
        for given in spec.inputs:
            if given is BEFORE:
                inputs.append(nodes[-1].outputs[0])
            elif isinstance(given, np.ndarray):
                inputs.append(editor.initializer(scope, f"{result}.{len(inputs)}", given))
            else:
                inputs.append(given)
        nodes.append(
            editor.node(spec.op, inputs, outputs=[result], attributes=spec.attributes, like=root)
        )
    last = nodes[-1]
    editor.replace_node(root, nodes, [last.outputs[0]])
    last.name, root.name = root.name, last.name
    return [*nodes, *readers(last.outputs[0])]


def readers(value: Value) -> list[Node]:
    """The nodes that read a value, each once, those of the graph only."""
    return list(dict.fromkeys(use.node for use in value.uses() if use.node.graph is not None))
