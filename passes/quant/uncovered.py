"""Layers with weights that no scheme of integers reaches, because the target has no kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from onnxslim import ir
from onnxslim.ir import DataType, Model
from onnxslim.pipeline.base import Declined
from onnxslim.targets import Target

WEIGHTED = {"ConvTranspose": 1, "GRU": 1, "LSTM": 1, "RNN": 1, "Einsum": 1}
"""Operators that multiply by a weight, besides Conv, Gemm and MatMul, and which input it is."""


def other_type(what: str, found: DataType | None) -> str:
    """Why what is not float32 is left alone, and what helps with float16."""
    if found == DataType.FLOAT16:
        return f"{what} is float16: cast{{to=float32}} before quant makes it float32"
    return f"{what} is not float32"


def uncovered(
    model: Model, target: Target, ruled_out: Mapping[str, str] | None = None
) -> Iterator[Declined]:
    """The operators of `WEIGHTED` that still read a float32 constant and have no int8 kernel.

    `ruled_out`: operators of the target itself that were not to be written.
    """
    for node in ir.nodes(model):
        op = ir.op(node)
        index = WEIGHTED.get(op)
        if index is None or op in target.static or op in target.dynamic:
            continue
        weight = ir.array(node.inputs[index]) if len(node.inputs) > index else None
        if weight is not None and weight.dtype == np.float32:
            own = (ruled_out or {}).get(op)
            why = f"{target.name} has no int8 kernel for {op}"
            yield Declined(ir.label(node), why if own is None else f"portable=true rules out {own}")
