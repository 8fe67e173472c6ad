"""What a Relu or a Clip leaves through, where a quantized tensor can do the same."""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.ir import Node


def limits_of(node: Node) -> tuple[float, float] | None:
    """What a Relu or Clip leaves through if saturation to uint8 can do the same, else None."""
    if ir.op(node) == "Relu":
        return 0.0, np.inf
    given = [node.inputs[i] if len(node.inputs) > i else None for i in (1, 2)]
    names = ("min", "max")
    limits: list[float] = []
    for value, name, default in zip(given, names, (-np.inf, np.inf), strict=True):
        constant = ir.array(value)
        if value is not None and (constant is None or constant.size != 1):
            return None
        old = ir.attribute(node, name, default)  # Clip before opset 11
        limits.append(float(old if constant is None else constant.reshape(())))
    low, high = limits
    return (low, high) if low <= 0 < high else None
