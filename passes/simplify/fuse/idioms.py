"""Parts of patterns that runtimes fuse by themselves, and that other rules must leave whole."""

from __future__ import annotations

from onnxslim import ir
from onnxslim.ir import Node, Value

_WITHIN_GELU = frozenset({"Erf", "Tanh"})
_WITHIN_NORM = frozenset({"Sqrt", "Reciprocal"})


def of_idiom(node: Node) -> str | None:
    """Why a Mul, Div, Add or Sub is left alone: it is part of a Gelu or a normalization."""
    if _reaches(node, _WITHIN_GELU, steps=4):
        return "it is part of a Gelu, which runtimes fuse"
    if _reaches(node, _WITHIN_NORM, steps=3):
        return "it is part of a normalization, which runtimes fuse"
    return None


def _reaches(node: Node, ops: frozenset[str], steps: int) -> bool:
    """Whether an operator is among the nearest above or below, by arithmetic only."""
    return _above(node, ops, steps) or any(ir.op(use.node) in ops for use in node.outputs[0].uses())


def _above(node: Node, ops: frozenset[str], steps: int) -> bool:
    level = [node]
    for _ in range(steps):
        makers = [p for n in level for v in n.inputs if (p := _producer(v)) is not None]
        if any(ir.op(maker) in ops for maker in makers):
            return True
        level = [maker for maker in makers if ir.op(maker) in _ARITHMETIC]
    return False


_ARITHMETIC = frozenset({"Add", "Mul", "Div", "Sub"})


def _producer(value: Value | None) -> Node | None:
    return None if value is None else value.producer()
