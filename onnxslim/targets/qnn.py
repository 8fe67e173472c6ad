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


def _compute(kernel: str, **more: object) -> StaticRule:
    return StaticRule("compute", "required", kernel, **more)  # type: ignore[arg-type]


_MOVE = StaticRule("move", "same", "")

QNN = Target(
    name="qnn",
    static={
        "Conv": StaticRule("linear", "required", "Conv2d", weight=1, bias=2, weight_axis=0),
        "Gemm": StaticRule(
            "linear",
            "required",
            "FullyConnected",
            weight=1,
            bias=2,
            per_channel=False,
            attributes={"alpha": (1.0,), "beta": (1.0,), "transA": (0,)},
        ),
        "MatMul": StaticRule(
            "linear", "required", "MatMul", weight=1, weight_axis=1, per_channel=False
        ),
        "Add": _compute("ElementWiseAdd", inputs=(0, 1), constants=True),
        "Mul": _compute("ElementWiseMultiply", inputs=(0, 1), constants=True),
        "AveragePool": _compute("PoolAvg2d"),
        "GlobalAveragePool": _compute("PoolAvg2d"),
        "Sigmoid": _compute("Sigmoid", fixed_range=(0.0, 1.0)),
        "Softmax": _compute("Softmax", fixed_range=(0.0, 1.0)),
        "Concat": StaticRule("move", "same", "", inputs=None),
        "MaxPool": _MOVE,
        "Reshape": _MOVE,
        "Transpose": _MOVE,
        "Squeeze": _MOVE,
        "Unsqueeze": _MOVE,
        "Flatten": _MOVE,
        "Relu": StaticRule("absorbed", "absorbed", ""),
        "Clip": StaticRule("absorbed", "absorbed", ""),
    },
    forms={
        "int8": Form(UINT8, INT8, affine=False),
        "int16": Form(UINT16, INT8, affine=False, min_opset=21),
    },
    local=False,
    schemes=frozenset({"int8", "int16"}),
)
