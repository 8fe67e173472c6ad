"""ONNX's own inference for one node, believed only as far as it holds for sizes of any number.

Parts of ONNX's inference read an unknown size as 0 and count on with it. So a number that it gives
for a node with symbolic sizes counts only if two other inferences, with numbers in the place of
the symbols, give it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts.dims import Dim, Expr
from onnxslim.analyses.facts.fact import UNKNOWN, Fact, numbers
from onnxslim.ir import Array, Inferred, Node

_TRIALS = (24, 36)
"""What stands for a symbol; multiples of it for the next ones, so that heads and groups divide."""

_MISTAKEN = frozenset({"STFT"})
"""Operators whose sizes it gets wrong (onnx 1.23 overlooks that one side is the default)."""

Types = Sequence["Inferred | None"]


def by_onnx(
    node: Node,
    inputs: Sequence[Fact | None],
    imports: Mapping[str, int],
    fresh: Callable[[bool], Expr],
) -> Sequence[Fact]:
    """What ONNX knows of each output; nothing of an operator that it does not know."""
    names: dict[Expr, str] = {}
    types = [_named(fact, names) for fact in inputs]
    contents = {i: array for i, fact in enumerate(inputs) if (array := _array(fact)) is not None}
    found = ir.infer_node(node, types, contents, imports)
    if found is None:
        return [UNKNOWN] * len(node.outputs)
    trials: list[Types | None] = []
    if names:
        tried = [[_with_numbers(t, unit) for t in types] for unit in _TRIALS]
        trials = [ir.infer_node(node, numbered, contents, imports) for numbered in tried]
    known = {name: expr for expr, name in names.items()}
    if node.op_type in _MISTAKEN:
        return [_rank_only(result, fresh) for result in found]
    return [_read(i, result, trials, known, fresh) for i, result in enumerate(found)]


def _array(fact: Fact | None) -> Array | None:
    """A small constant; axes, sizes and the like."""
    if fact is None or fact.dtype is None:
        return None
    sizes, content = numbers(fact.shape), numbers(fact.content)
    if sizes is None or content is None:
        return None
    return np.array(content, fact.dtype.numpy()).reshape(sizes)


def _named(fact: Fact | None, names: dict[Expr, str]) -> Inferred | None:
    if fact is None:
        return None
    if fact.shape is None:
        return Inferred(fact.dtype, None)
    dims = (d if isinstance(d, int) else names.setdefault(d, f"d{len(names)}") for d in fact.shape)
    return Inferred(fact.dtype, tuple(dims))


def _with_numbers(kind: Inferred | None, unit: int) -> Inferred | None:
    if kind is None or kind.shape is None:
        return kind
    return Inferred(
        kind.dtype,
        tuple(unit * (1 + int(d[1:])) if isinstance(d, str) else d for d in kind.shape),
    )


def _read(
    index: int,
    found: Inferred | None,
    trials: Sequence[Types | None],
    known: Mapping[str, Expr],
    fresh: Callable[[bool], Expr],
) -> Fact:
    if found is None:
        return UNKNOWN
    if found.shape is None:
        return Fact(found.dtype)
    dims: list[Dim] = []
    for axis, dim in enumerate(found.shape):
        expr = known.get(dim) if isinstance(dim, str) else None
        sure = isinstance(dim, int) and all(_gives(t, index, axis, dim) for t in trials)
        dims.append(dim if isinstance(dim, int) and sure else expr or fresh(True))
    return Fact(found.dtype, tuple(dims))


def _rank_only(found: Inferred | None, fresh: Callable[[bool], Expr]) -> Fact:
    if found is None or found.shape is None:
        return UNKNOWN if found is None else Fact(found.dtype)
    return Fact(found.dtype, tuple(fresh(True) for _ in found.shape))


def _gives(trial: Types | None, index: int, axis: int, size: int) -> bool:
    kind = None if trial is None else trial[index]
    shape = None if kind is None else kind.shape
    return shape is not None and axis < len(shape) and shape[axis] == size
