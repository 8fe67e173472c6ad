"""What quant remembers in `Value.meta` of what it put in, so that it can be taken out again."""

from __future__ import annotations

from dataclasses import dataclass

from onnxslim.ir import TensorProtocol, Value
from onnxslim.passes.quant.qparams import Affine

FLOAT = "onnxslim.float"


@dataclass(frozen=True)
class FloatWeight:
    """The float constant that a DequantizeLinear stands for; None for a bias that was not there."""

    tensor: TensorProtocol | None


@dataclass(frozen=True)
class FloatEdge:
    """The tensor that a Q and DQ pair was put on, and the affine map that the DQ absorbed."""

    value: Value
    affine: Affine
