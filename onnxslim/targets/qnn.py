"""ONNX Runtime with Qualcomm's QNN: every tensor of a quantized part has Q and DQ.

An operator is taken with the DequantizeLinears of its inputs and the QuantizeLinear of its output,
so that the output is always quantized, and with the same parameters as it is read. Activations are
uint8 or uint16, weights int8 with zero point 0; only convolutions have one scale per channel.
Sigmoid and Softmax have fixed ranges; Concat and what moves numbers needs equal scales on both
sides. After ONNX Runtime's documentation of the QNN execution provider. Tests assert the
structure; no such device has run it.
"""

from __future__ import annotations

from onnxslim.targets.base import StaticRule, Target
from onnxslim.targets.forms import INT8, UINT8, UINT16, Form
from onnxslim.targets.rules import (
    ACTIVATIONS,
    MOVES,
    computed,
    deconv,
    linear,
    of_activations,
    per_tensor,
)

_LAYERS = linear("required", "Conv2d", "FullyConnected", "MatMul")

QNN = Target(
    name="qnn",
    static={
        "Conv": _LAYERS["Conv"],
        "ConvTranspose": deconv("required", "TransposeConv2d"),
        "Gemm": per_tensor(_LAYERS["Gemm"]),
        "MatMul": of_activations(per_tensor(_LAYERS["MatMul"])),
        **MOVES,
        **ACTIVATIONS,
        "Add": computed("ElementWiseAdd", inputs=(0, 1), constants=True),
        "Mul": computed("ElementWiseMultiply", inputs=(0, 1), constants=True),
        "AveragePool": computed("PoolAvg2d"),
        "GlobalAveragePool": computed("PoolAvg2d"),
        "Sigmoid": computed("Sigmoid", fixed_range=(0.0, 1.0)),
        "Softmax": computed("Softmax", fixed_range=(0.0, 1.0)),
        "Concat": StaticRule("move", "same", "", inputs=None),
    },
    forms={
        "int8": Form(UINT8, INT8, affine=False),
        "int16": Form(UINT16, INT8, affine=False, min_opset=21),
    },
    local=False,
    schemes=frozenset({"int8", "int16"}),
)
