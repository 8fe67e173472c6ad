"""Compares facts about a model with what its values are in one run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from onnxslim import ir
from onnxslim.analyses.facts import Dim, Facts
from onnxslim.analyses.facts.dims import evaluate, render
from onnxslim.ir import Value


def main_values(model: ir.Model) -> list[Value]:
    """Every named value that a node of the main graph computes."""
    return [value for node in model.graph for value in node.outputs if value.name]


def tensor(content: Any) -> ir.Array | None:
    """The array, or None for a sequence or a missing optional."""
    return content if type(content) is np.ndarray else None


def contradictions(
    model: ir.Model,
    facts: Facts,
    arrays: Mapping[str, Any],
    inputs: Mapping[str, Any],
    sizes: Mapping[str, int] | None = None,
) -> list[str]:
    """What a run shows to be wrong; equal expressions must be equal numbers throughout the run.

    `sizes` has named sizes that are known beforehand.
    """
    pairs = [(v, arrays[str(v.name)]) for v in main_values(model) if str(v.name) in arrays]
    pairs += [(v, inputs[str(v.name)]) for v in model.graph.inputs if str(v.name) in inputs]
    runs = [(value, array) for value, given in pairs if (array := tensor(given)) is not None]
    wrong = [reason for value, array in runs for reason in _types(facts, value, array)]
    if wrong:
        return wrong
    claims = [claim for value, array in runs for claim in _claims(facts, value, array)]
    bound: dict[str, int] = dict(sizes or {})
    wrong = list(_bind(claims, bound))
    for where, dim, number in claims:
        found = evaluate(dim, bound)
        if found is not None and found != number:
            wrong.append(f"{where}: {render(dim)} is {number}, not {found}")
    return wrong


Claim = tuple[str, Dim, int]


def _types(facts: Facts, value: Value, array: ir.Array) -> Iterator[str]:
    dtype, shape = facts.dtype(value), facts.shape(value)
    text = array.dtype.kind in "OUS"
    if dtype is not None and not text and dtype.numpy() != array.dtype:
        yield f"{value.name}: type {dtype}, not {array.dtype}"
    if shape is not None and len(shape) != array.ndim:
        yield f"{value.name}: shape {shape}, not {array.shape}"
    constant = facts.constant(value)
    if constant is not None and not (
        constant.dtype == array.dtype and np.array_equal(constant, array)
    ):
        yield f"{value.name}: content {constant}, not {array}"


def _claims(facts: Facts, value: Value, array: ir.Array) -> Iterator[Claim]:
    for axis, (dim, size) in enumerate(zip(facts.shape(value) or (), array.shape, strict=False)):
        yield f"{value.name} axis {axis}", dim, size
    content = facts.content(value)
    if content is not None and len(content) != array.size:
        yield f"{value.name} elements", len(content), array.size
    elif content is not None and array.dtype.kind in "iub":
        for index, (dim, element) in enumerate(zip(content, array.ravel().tolist(), strict=True)):
            yield f"{value.name} element {index}", dim, int(element)


def _bind(claims: Iterable[Claim], bound: dict[str, int]) -> Iterator[str]:
    """Give each name and each unknown the number that it has where it stands alone."""
    for where, dim, number in claims:
        if isinstance(dim, int) or len(dim.terms) != 1:
            continue
        (monomial, factor) = dim.terms[0]
        if factor != 1 or len(monomial) != 1 or monomial[0].args:
            continue
        atom = monomial[0]
        if bound.setdefault(atom.text, number) != number:
            yield f"{where}: {atom.text} is {number} here and {bound[atom.text]} elsewhere"
        if atom.size and number < 0:
            yield f"{where}: the size {atom.text} is {number}"
