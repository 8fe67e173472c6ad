"""What may be computed in half precision: by the operators' own type constraints."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

import onnx.defs

from onnxslim.ir.types import DataType, Model, Node, Value
from onnxslim.ir.walk import STANDARD_DOMAINS, constant, nodes, op

TYPE_NAMES = {DataType.FLOAT: "tensor(float)", DataType.FLOAT16: "tensor(float16)"}

KEPT = frozenset(
    {
        *("Range", "CumSum"),  # counting and summing up: exact to 2048 only
        *("QuantizeLinear", "DequantizeLinear"),  # scales below 6e-8 would vanish
        *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"),
        *("Multinomial", "HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix"),
    }
)
"""Operators that stay as they are, whatever their constraints allow."""

LISTS = ("Sequence", "SplitToSequence", "ConcatFromSequence", "Optional")
"""How operators over sequences and optional values begin."""


class Slots:
    """Which inputs and outputs of a node can have the element type."""

    def __init__(self, model: Model, to: DataType, keep: Collection[Node] = ()) -> None:
        self._version = model.opset_imports.get("", 1)
        self._type = TYPE_NAMES[to]
        self._kept = _shape_arithmetic(model).union(keep)

    def inputs(self, node: Node) -> list[bool]:
        """One flag per input."""
        return self._flags(node, "inputs", len(node.inputs))

    def outputs(self, node: Node) -> list[bool]:
        """One flag per output."""
        return self._flags(node, "outputs", len(node.outputs))

    def _flags(self, node: Node, what: str, count: int) -> list[bool]:
        if node in self._kept or op(node) in KEPT or node.domain not in STANDARD_DOMAINS:
            return [False] * count
        allowed = _allowed(node.op_type, self._version, what)
        if not allowed:
            return [False] * count
        last = len(allowed) - 1  # variadic ones go on
        return [self._type in allowed[min(index, last)] for index in range(count)]


@lru_cache(maxsize=512)
def _allowed(op_type: str, version: int, what: str) -> tuple[frozenset[str], ...]:
    """The types of each formal input or output; nothing for an operator without a schema."""
    try:
        schema: Any = onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return ()
    variables: Mapping[str, frozenset[str]] = {
        c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints
    }
    formal = schema.inputs if what == "inputs" else schema.outputs
    return tuple(variables.get(p.type_str, frozenset({p.type_str})) for p in formal)


def _shape_arithmetic(model: Model) -> set[Node]:
    """Nodes that compute with sizes alone: half precision would round sizes over 2048."""
    found: set[Node] = set()
    for node in nodes(model):
        if op(node) in ("Shape", "Size"):
            found.add(node)
            continue
        varying = [value for value in _read(node) if constant(value) is None]
        if varying and all(value.producer() in found for value in varying):
            found.add(node)
    return found


def _read(node: Node) -> Iterator[Value]:
    return (value for value in node.inputs if value is not None)
