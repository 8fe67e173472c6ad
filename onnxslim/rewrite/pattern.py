"""Patterns of operators, written as expressions, and their matches in a graph.

    x = Any("x")
    swish = op("Mul", x, op("Sigmoid", x))

`match(swish, node, facts)` looks from the node that computes the whole expression backwards.
Operands of commutative operators match in either order, a name stands for the same value
wherever it occurs, and what is computed inside must be read only inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any as Unknown
from typing import TypeAlias

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Array, Node, Value

_COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "Sum", "Equal", "And", "Or", "Xor"})


@dataclass(frozen=True)
class Any:
    """Any value; the same one wherever the name occurs."""

    name: str


@dataclass(frozen=True)
class Constant:
    """A constant that the predicate holds for; `text` tells the user what was expected."""

    name: str
    holds: Callable[[Array], bool]
    text: str


@dataclass(frozen=True)
class Op:
    """An operator over operands; attributes with a value must be given so or be so by default."""

    op: str
    operands: tuple[Term, ...]
    name: str = ""  # binds the node
    attributes: Mapping[str, tuple[Unknown, Unknown]] = field(  # name -> (expected, default)
        default_factory=dict[str, "tuple[Unknown, Unknown]"]
    )


@dataclass(frozen=True)
class Either:
    """One of several expressions, the first that matches."""

    terms: tuple[Term, ...]


Term: TypeAlias = "Any | Constant | Op | Either"


def op(kind: str, *operands: Term, name: str = "", **attributes: tuple[Unknown, Unknown]) -> Op:
    """An operator; attributes as `axis=(expected, default)`."""
    return Op(kind, operands, name, attributes)


def either(*terms: Term) -> Either:
    """One of several expressions."""
    return Either(terms)


def number(expected: float, name: str = "") -> Constant:
    """One floating-point number, equal to the expected one up to the rounding of its type."""

    def holds(array: Array) -> bool:
        if array.size != 1 or array.dtype.kind != "f":
            return False
        slack = float(np.finfo(array.dtype).eps) * abs(expected)
        return abs(float(array.reshape(())) - expected) <= slack

    return Constant(name or f"number {expected:.6g}", holds, f"{expected:.6g}")


def single(name: str) -> Constant:
    """Any one floating-point number."""
    return Constant(name, lambda a: a.size == 1 and a.dtype.kind == "f", "one number")


def weight(name: str) -> Constant:
    """Any floating-point constant."""
    return Constant(name, lambda a: a.dtype.kind == "f", "floating-point numbers")


def integers(name: str) -> Constant:
    """Any constant list of integers, such as axes."""
    return Constant(name, lambda a: a.ndim <= 1 and a.dtype.kind in "iu", "integers")


@dataclass(frozen=True)
class Match:
    """What the names of a pattern stand for in a graph; `inner` are all nodes but the root."""

    root: Node
    values: Mapping[str, Value] = field(default_factory=dict[str, Value])
    nodes: Mapping[str, Node] = field(default_factory=dict[str, Node])
    inner: tuple[Node, ...] = ()
    unmet: tuple[str, ...] = ()  # constants that were not as expected

    def array(self, name: str) -> Array:
        """The constant of this name."""
        found = ir.array(self.values[name])
        if found is None:
            raise KeyError(name)
        return found

    def number(self, name: str) -> float:
        """The constant of this name as one number."""
        return float(self.array(name).reshape(()))


def match(pattern: Op, root: Node, facts: Facts) -> Match | str | None:
    """What the pattern's names stand for; a reason where all but a detail fits, else None."""
    nearly: str | None = None
    for found in _node(pattern, root, Match(root)):
        reason = found.unmet[0] if found.unmet else _read_elsewhere(found)
        if reason is None:
            return found
        nearly = nearly or reason
    return nearly


def match_any(patterns: tuple[Op, ...], root: Node, facts: Facts) -> Match | str | None:
    """The first of several patterns that matches, else the first reason."""
    nearly: str | None = None
    for pattern in patterns:
        found = match(pattern, root, facts)
        if isinstance(found, Match):
            return found
        nearly = nearly or found
    return nearly


def _term(term: Term, value: Value | None, so_far: Match) -> Iterator[Match]:
    if isinstance(term, Either):
        for option in term.terms:
            yield from _term(option, value, so_far)
    elif value is None:
        return
    elif isinstance(term, Any):
        if so_far.values.get(term.name, value) is value:
            yield replace(so_far, values={**so_far.values, term.name: value})
    elif isinstance(term, Constant):
        yield from _constant(term, value, so_far)
    else:
        node = value.producer()
        if node is not None and value is node.outputs[0]:
            for found in _node(term, node, so_far):
                inner = found.inner if node in found.inner else (*found.inner, node)
                yield replace(found, inner=inner)


def _constant(term: Constant, value: Value, so_far: Match) -> Iterator[Match]:
    array = ir.array(value)
    if array is None:
        return
    bound = replace(so_far, values={**so_far.values, term.name: value})
    if term.holds(array):
        yield bound
    else:
        given = f"{array.reshape(()):.6g}" if array.size == 1 and array.dtype.kind == "f" else ""
        given = given or f"{array.dtype}{list(array.shape)}"
        unmet = f"'{value.name}' is {given}, not {term.text}"
        yield replace(bound, unmet=(*bound.unmet, unmet))


def _node(term: Op, node: Node, so_far: Match) -> Iterator[Match]:
    if ir.op(node) != term.op or len(node.inputs) < len(term.operands):
        return
    if any(value is not None for value in node.inputs[len(term.operands) :]):
        return
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return
    for name, (expected, default) in term.attributes.items():
        if ir.attribute(node, name, default) != expected:
            return
    if term.name:
        if so_far.nodes.get(term.name, node) is not node:
            return
        so_far = replace(so_far, nodes={**so_far.nodes, term.name: node})
    yield from _operands(term.operands, tuple(node.inputs), so_far)
    if term.op in _COMMUTATIVE and len(term.operands) == 2:
        yield from _operands(term.operands, tuple(reversed(node.inputs)), so_far)


def _operands(
    terms: tuple[Term, ...], values: tuple[Value | None, ...], so_far: Match
) -> Iterator[Match]:
    if not terms:
        yield so_far
        return
    for found in _term(terms[0], values[0], so_far):
        yield from _operands(terms[1:], values[1:], found)


def _read_elsewhere(found: Match) -> str | None:
    """Why the inner nodes cannot go away with the root."""
    members = {found.root, *found.inner}
    for node in found.inner:
        if node.graph is not found.root.graph:
            return f"'{ir.label(node)}' is in another graph"
        for value in node.outputs:
            if value.is_graph_output():
                return f"'{value.name}', computed inside, is a graph output"
            if any(use.node not in members for use in value.uses()):
                return f"'{value.name}', computed inside, is read elsewhere too"
    return None
