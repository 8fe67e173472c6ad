"""Multiply-accumulates of one node: a table by operator.

Sizes are those of the node's inputs and outputs; quantized forms count like their float originals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from onnxslim import ir
from onnxslim.ir import Node

Sizes = tuple[int, ...]


class UnknownSize(Exception):
    """A shape that the count needs is not known."""


@dataclass(frozen=True)
class NodeSizes:
    """The shapes around a node; asking for one that is not known raises UnknownSize."""

    node: Node
    inputs: tuple[Sizes | None, ...]
    outputs: tuple[Sizes | None, ...]

    def input(self, index: int) -> Sizes:
        """The shape of an input that the operator requires."""
        shape = self.inputs[index] if index < len(self.inputs) else None
        return self._known(shape, f"input {index}")

    def output(self, index: int = 0) -> Sizes:
        """The shape of an output."""
        return self._known(self.outputs[index], f"output {index}")

    def _known(self, shape: Sizes | None, what: str) -> Sizes:
        if shape is None:
            raise UnknownSize(f"the shape of {what} of {ir.label(self.node)} is not known")
        return shape


Count = Callable[[NodeSizes], int]


def _convolution(weight: int) -> Count:
    """Each output sums over C/groups * prod(kernel) products; weight [out, C/groups, ...]."""
    return lambda at: prod(at.output()) * prod(at.input(weight)[1:])


def _transposed(weight: int) -> Count:
    """Each input is multiplied with out/groups * prod(kernel); weight [C, out/groups, ...]."""
    return lambda at: prod(at.input(0)) * prod(at.input(weight)[1:])


def _product(at: NodeSizes) -> int:
    """Each output sums over the last axis of the left operand."""
    return prod(at.output()) * at.input(0)[-1]


def _gemm(at: NodeSizes) -> int:
    return prod(at.output()) * at.input(0)[0 if ir.attribute(at.node, "transA", 0) else 1]


def _einsum(at: NodeSizes) -> int:
    """All combinations of all indices of the equation (an ellipsis counts through the output)."""
    equation = ir.attribute(at.node, "equation", "")
    text = equation.decode() if isinstance(equation, bytes) else str(equation)
    terms = text.replace(" ", "").split("->")[0].split(",")
    if "." in text:
        inner = {c for term in terms for c in term} - set(text.split("->")[-1]) - {"."}
        return prod(at.output()) * prod(_index_sizes(terms, at).get(c, 1) for c in inner)
    return prod(_index_sizes(terms, at).values())


def _index_sizes(terms: list[str], at: NodeSizes) -> Mapping[str, int]:
    sizes: dict[str, int] = {}
    for i, term in enumerate(terms):
        head, _, tail = term.partition("...")
        sizes |= dict(zip(head, at.input(i), strict=False))
        sizes |= dict(zip(reversed(tail), reversed(at.input(i)), strict=False))
    return sizes


def _recurrent(at: NodeSizes) -> int:
    """Each step multiplies with the weights W and R of all directions."""
    first, second = at.input(0)[:2]  # sequence and batch, in either layout
    return first * second * (prod(at.input(1)) + prod(at.input(2)))


def _attention(past_index: int) -> Count:
    """Q K^T and the sum of V: every query element, and every output element, once per key."""

    def count(at: NodeSizes) -> int:
        past = at.inputs[past_index] if len(at.inputs) > past_index else None
        keys = at.input(1)[-2] + (past[-2] if past else 0)
        return (prod(at.input(0)) + prod(at.output())) * keys

    return count


_MS = "com.microsoft::"

MACS: Mapping[str, Count] = {
    "Attention": _attention(4),
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "ConvTranspose": _transposed(1),
    "DeformConv": _convolution(1),
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearConv": _convolution(3),
    "QLinearMatMul": _product,
    "RNN": _recurrent,
    f"{_MS}DynamicQuantizeMatMul": _product,
    f"{_MS}FusedConv": _convolution(1),
    f"{_MS}FusedGemm": _gemm,
    f"{_MS}MatMulIntegerToFloat": _product,
    f"{_MS}MatMulNBits": _product,
    f"{_MS}MultiHeadAttention": _attention(6),
    f"{_MS}QGemm": _gemm,
}
"""Operators that multiply. All others count as zero."""
