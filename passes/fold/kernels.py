"""Operators computed by numpy, where numpy gives every bit that ONNX Runtime gives.

Moving data, comparing, and arithmetic that IEEE 754 rounds correctly: float32, float64, integers
that wrap. All else is left to the runtime: a kernel that cannot be sure gives None.
"""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Node
from onnxslim.passes.fold.arithmetic import ARITHMETIC
from onnxslim.passes.fold.moving import MOVING
from onnxslim.passes.fold.operands import NATIVE, Inputs, Kernel

KERNELS: dict[str, Kernel] = {**MOVING, **ARITHMETIC}


def compute(node: Node, inputs: Inputs, opset: int) -> Array | None:
    """The result of a node with one output; None where numpy might differ or cannot tell."""
    kernel = KERNELS.get(ir.op(node))
    if kernel is None or len(node.outputs) != 1:
        return None
    if not all(array is None or array.dtype.kind in NATIVE for array in inputs):
        return None
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        return None
    try:
        with np.errstate(all="ignore"):
            found = kernel(node, inputs, opset)
    except (ValueError, IndexError, TypeError, OverflowError):  # what the runtime will refuse
        return None
    return None if found is None else np.asarray(found)
