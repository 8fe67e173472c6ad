"""Operators that treat each row (last axis) of their first input by itself.

Where such operators stand between two arrangements of elements, either can be moved to the other
side, as long as it leaves the rows whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxslim import ir
from onnxslim.analyses.facts import Dim, Facts
from onnxslim.ir import Editor, Node, Value
from onnxslim.passes.simplify.eliminate.common import given, has_references, is_private

ELEMENTWISE = frozenset(
    {"Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Clip",
     "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf",
     "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu",
     "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh",
     "ThresholdedRelu"}
)  # fmt: skip
"""Of one tensor; further inputs are single numbers."""

BINARY = frozenset(
    {"Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min",
     "Mul", "Or", "Pow", "Sub", "Xor"}
)  # fmt: skip

_LONGEST = 8


@dataclass(frozen=True)
class RowOperator:
    """A node as a function of the rows of one of its inputs."""

    node: Node
    at: int  # the input that has the rows
    needs_rows: bool  # rows must stay whole; else single elements are enough
    flat: bool = False  # its input must have two axes
    shared: bool = False  # what it reads at `at` may have other readers

    def copy(self, editor: Editor, x: Value) -> Node:
        """The same node for other rows; it takes over the name."""
        inputs = list(self.node.inputs)
        inputs[self.at] = x
        made = editor.node(
            self.node.op_type,
            inputs,
            outputs=[str(self.node.outputs[0].name)],
            attributes={a.name: a.value for a in self.node.attributes.values()},
            name=self.node.name or "",
            like=self.node,
        )
        made.name, self.node.name = self.node.name, made.name
        return made


def row_operator(node: Node, facts: Facts) -> RowOperator | None:
    """How a node acts on rows; None where it does not, or what else it reads is no constant."""
    operator = ir.op(node)
    if has_references(node) or len([v for v in node.outputs if v.uses()]) > 1:
        return None
    if operator in ELEMENTWISE:
        scalars = all(_is_scalar(value) for value in node.inputs[1:])
        return RowOperator(node, 0, needs_rows=False) if scalars else None
    if operator in BINARY:
        return _binary(node)
    if operator == "MatMul":
        weight = ir.constant(given(node, 1))
        whole = weight is not None and len(weight.shape) == 2 and (facts.rank(given(node, 0)) or 0)
        return RowOperator(node, 0, needs_rows=True) if whole and whole >= 2 else None
    if operator == "Gemm":
        return _gemm(node)
    if operator == "LayerNormalization":
        last = ir.attribute(node, "axis", -1) == -1 and _are_vectors(node.inputs[1:])
        return RowOperator(node, 0, needs_rows=True) if last else None
    if operator in ("Softmax", "LogSoftmax"):
        last = facts.opset(node) >= 13 and ir.attribute(node, "axis", -1) == -1
        return RowOperator(node, 0, needs_rows=True) if last else None
    return None


def _binary(node: Node) -> RowOperator | None:
    if len(node.inputs) != 2 or "axis" in node.attributes:  # broadcasting before opset 7
        return None
    for at in (0, 1):
        other = node.inputs[1 - at]
        if ir.constant(other) is not None and ir.constant(node.inputs[at]) is None:
            if _is_scalar(other):
                return RowOperator(node, at, needs_rows=False)
            return RowOperator(node, at, needs_rows=True) if _are_vectors([other]) else None
    return None


def _gemm(node: Node) -> RowOperator | None:
    if ir.attribute(node, "transA", 0) or ir.constant(given(node, 1)) is None:
        return None
    bias = given(node, 2)
    if bias is not None and not _are_vectors([bias]):
        return None
    return RowOperator(node, 0, needs_rows=True, flat=True)


def _is_scalar(value: Value | None) -> bool:
    """Whether a value is left out, or a constant single number that widens nothing."""
    if value is None:
        return True
    tensor = ir.constant(value)
    return tensor is not None and tensor.size == 1 and len(tensor.shape) <= 1


def _are_vectors(values: Sequence[Value | None]) -> bool:
    tensors = [ir.constant(value) for value in values if value is not None]
    return all(tensor is not None and len(tensor.shape) <= 1 for tensor in tensors)


def operators_above(value: Value, reader: Node, facts: Facts) -> list[RowOperator]:
    """The row operators, first to last, that nothing but the reader gets its value from."""
    found: list[RowOperator] = []
    while len(found) < _LONGEST and is_private(value, reader):
        producer = value.producer()
        operator = None if producer is None else row_operator(producer, facts)
        if operator is None:
            break
        x = operator.node.inputs[operator.at]
        if x is None:
            break
        found.insert(0, operator)
        value, reader = x, operator.node
    return found


def last_size(value: Value | None, facts: Facts) -> Dim | None:
    """The length of the rows of a tensor."""
    shape = facts.shape(value)
    return shape[-1] if shape else None
