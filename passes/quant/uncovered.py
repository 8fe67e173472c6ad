"""Layers with weights that no scheme of integers reaches, because the target has no kernel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxslim import ir
from onnxslim.ir import Model
from onnxslim.pipeline.base import Declined
from onnxslim.targets import Target

WEIGHTED = {"ConvTranspose": 1, "GRU": 1, "LSTM": 1, "RNN": 1, "Einsum": 1}
"""Operators that multiply by a weight, besides Conv, Gemm and MatMul, and which input it is."""


def uncovered(model: Model, target: Target) -> Iterator[Declined]:
    """The operators of `WEIGHTED` that still read a float32 constant and have no int8 kernel."""
    for node in ir.nodes(model):
        index = WEIGHTED.get(ir.op(node))
        if index is None or ir.op(node) in target.static or ir.op(node) in target.dynamic:
            continue
        weight = ir.array(node.inputs[index]) if len(node.inputs) > index else None
        if weight is not None and weight.dtype == np.float32:
            yield Declined(ir.label(node), f"{target.name} has no int8 kernel for {ir.op(node)}")
