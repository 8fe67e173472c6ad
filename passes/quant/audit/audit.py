"""What ONNX Runtime makes of a quantized model: which planned nodes did not become int8, and where
every QuantizeLinear and DequantizeLinear that still runs lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from onnxslim import ir
from onnxslim.ir import Model, Node

Place = Literal["end", "border", "constant", "idle"]

_INT8 = ("QLinear", "QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulInteger")
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True)
class Audit:
    """Counts of the optimized graph, and the planned nodes that still run in float.

    `places` counts each Q and DQ that runs: at an *end* of the graph, at the *border* to an
    operator in float, on a *constant* that is not read as integers, or *idle*: a Q that only a DQ
    reads, or the reverse, with nothing in between.
    """

    int8_kernels: int
    places: Mapping[Place, int]
    left: frozenset[str]  # names of nodes

    @property
    def q_and_dq(self) -> int:
        """All that still run."""
        return sum(self.places.values())


def audit(optimized: Model, planned: Mapping[str, str]) -> Audit:
    """Look at ONNX Runtime's optimized graph. `planned`: node name -> operator, for what should
    be int8."""
    int8, places, left = 0, Counter[Place](), set[str]()
    for node in optimized.graph:
        kernel = _kernel(node)
        int8 += kernel.startswith(_INT8)
        if kernel in (_Q, _DQ):
            places[_place(node)] += 1
        original = _original(node.name or "", planned)
        if original is not None and not kernel.startswith(_INT8):
            left.update([original] if _computes(kernel, planned[original]) else [])
    return Audit(int8, dict(places), frozenset(left))


def _kernel(node: Node) -> str:
    return ir.op(node).rpartition("::")[2]


def _place(node: Node) -> Place:
    """Where a Q or DQ of the optimized graph lies."""
    source, result = node.inputs[0], node.outputs[0]
    if ir.constant(source) is not None:
        return "constant"
    producer = None if source is None else source.producer()
    if producer is None or result.is_graph_output():
        return "end"
    opposite = _DQ if _kernel(node) == _Q else _Q
    readers = {_kernel(use.node) for use in result.uses()}
    return "idle" if _kernel(producer) == opposite or readers == {opposite} else "border"


def _original(name: str, planned: Collection[str]) -> str | None:
    """The planned node that a node of the optimized graph comes from; fusions add words."""
    if name in planned:
        return name
    trimmed = name.removeprefix("fused ").partition("/MatMulAddFusion")[0]
    return trimmed if trimmed in planned else None


def _computes(kernel: str, op: str) -> bool:
    """Whether a kernel is the float form of an operator: Conv, FusedConv, Gemm of a MatMul."""
    return op in kernel or (op == "MatMul" and "Gemm" in kernel)
