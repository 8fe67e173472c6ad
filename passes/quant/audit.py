"""What ONNX Runtime makes of a quantized model: which planned layers did not become int8."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from onnxslim import ir
from onnxslim.ir import Model
from onnxslim.runtime.session import optimized_graph

_INT8 = ("QLinear", "QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulInteger")


@dataclass(frozen=True)
class Audit:
    """Counts of the optimized graph, and the planned nodes that still run in float."""

    int8_kernels: int
    q_and_dq: int
    left: frozenset[str]  # names of nodes


def audit(model: Model, planned: Mapping[str, str]) -> Audit:
    """Look at the optimized graph. `planned`: node name -> operator, for what should be int8.

    Raises RuntimeUnavailable where ONNX Runtime cannot open the model.
    """
    int8 = conversions = 0
    left: set[str] = set()
    for node in optimized_graph(model).graph:
        kernel = ir.op(node).rpartition("::")[2]
        int8 += kernel.startswith(_INT8)
        conversions += kernel in ("QuantizeLinear", "DequantizeLinear")
        original = _original(node.name or "", planned)
        if original is not None and not kernel.startswith(_INT8):
            left.update([original] if _computes(kernel, planned[original]) else [])
    return Audit(int8, conversions, frozenset(left))


def _original(name: str, planned: Collection[str]) -> str | None:
    """The planned node that a node of the optimized graph comes from; fusions add words."""
    if name in planned:
        return name
    trimmed = name.removeprefix("fused ").partition("/MatMulAddFusion")[0]
    return trimmed if trimmed in planned else None


def _computes(kernel: str, op: str) -> bool:
    """Whether a kernel is the float form of an operator: Conv, FusedConv, Gemm of a MatMul."""
    return op in kernel or (op == "MatMul" and "Gemm" in kernel)
