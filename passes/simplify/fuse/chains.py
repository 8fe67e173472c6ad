"""Runs of Mul, Div, Add and Sub by constants -> at most one Mul and one Add.

y = (x * a + b) * c + d = x * (a c) + (b c + d), the constants computed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Array, Editor, Node, Value
from onnxslim.passes.fold.batchnorm import arithmetic
from onnxslim.passes.simplify.fuse.axes import may_change_shape
from onnxslim.passes.simplify.fuse.fusion import BEFORE, Made, put
from onnxslim.passes.simplify.fuse.idioms import of_idiom
from onnxslim.rewrite import Rewrite, Rule

_OPS = frozenset({"Mul", "Div", "Add", "Sub"})
_LARGEST = 4096.0
"""Beyond it an offset may be there to round: x + 2^23 - 2^23 is x rounded to a whole number."""


@dataclass(frozen=True)
class _Run:
    """y = factor * x + offset, of how many nodes."""

    x: Value
    factor: Array
    offset: Array
    shapes: tuple[tuple[int, ...], ...]  # of the constants
    largest: float  # of the magnitudes of all offsets on the way


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    run = _run_to(node)
    if run is None or len(run.shapes) < 2:
        return None
    dtype = _dtype(node)
    parts = [(run.factor != 1).any(), (run.offset != 0).any()]
    if sum(map(bool, parts)) >= len(run.shapes):
        return None
    if not any(parts):
        return None  # nothing is left: it would change names only
    if (reason := of_idiom(node)) is not None:
        return reason
    if max(run.factor.size, run.offset.size) > max(prod(shape) for shape in run.shapes):
        return "together its constants would be larger"
    if run.largest > _LARGEST:
        return "its offsets are so large that they may be there to round"
    limit = float(np.finfo(dtype.name).max)
    tiny = float(np.finfo(dtype.name).tiny)
    factors = np.abs(run.factor)
    if not (factors <= limit).all() or (factors[factors != 0] < tiny).any():
        return f"the product of its factors is beyond the range of {dtype}"
    if not (np.abs(run.offset) <= limit).all():
        return f"the sum of its offsets is beyond the range of {dtype}"
    for shape in run.shapes:
        if (reason := may_change_shape(shape, run.x, facts)) is not None:
            return reason
    return lambda editor: _replace(editor, node, run, dtype)


def _dtype(node: Node) -> np.dtype[np.generic]:
    arrays = [ir.array(value) for value in node.inputs]
    return next(a.dtype for a in arrays if a is not None)


def _run_to(node: Node) -> _Run | None:
    """The longest run that ends with the node, none of it read on the way."""
    steps: list[tuple[Array, Array]] = []
    shapes: list[tuple[int, ...]] = []
    at: Node | None = node
    x: Value | None = None
    while at is not None and ir.op(at) in _OPS and at.graph is node.graph and len(steps) < 16:
        value = at.outputs[0]
        if at is not node and (len(value.uses()) != 1 or value.is_graph_output()):
            break
        does = arithmetic(at)
        if isinstance(does, str):
            break
        shape = does.constant.shape
        steps.append((_shaped(does.factor, shape), _shaped(does.offset, shape)))
        shapes.append(shape)
        x = does.x
        at = x.producer()
    if x is None:
        return None
    factor, offset, largest = np.ones(()), np.zeros(()), 0.0
    for a, b in reversed(steps):
        factor, offset = factor * a, offset * a + b
        largest = max(largest, float(np.abs(offset).max(initial=0)))
    return _Run(x, factor, offset, tuple(shapes), largest)


def _shaped(array: Array, shape: tuple[int, ...]) -> Array:
    """A constant in the shape of the node's own; a neutral one is a scalar."""
    return array.reshape(()) if array.size == 1 and array.shape != shape else array


def _replace(editor: Editor, node: Node, run: _Run, dtype: np.dtype[np.generic]) -> Sequence[Node]:
    made: list[Made] = []
    for op, constant, neutral in (("Mul", run.factor, 1), ("Add", run.offset, 0)):
        if (constant != neutral).any():
            made.append(Made(op, (BEFORE if made else run.x, np.asarray(constant, dtype))))
    return put(editor, node, made)


CHAIN = Rule(
    "constant-chain", _OPS, _match, "Mul, Div, Add, Sub by constants -> one Mul, one Add",
    exact=False,
)  # fmt: skip
RULES: tuple[Rule, ...] = (CHAIN,)
