"""OpenVINO on CPUs: Q and DQ in front of layers, uint8 activations, float32 biases.

Weights are symmetric, with one scale per output channel, activations have one scale per tensor;
both inputs of Add are quantized; what moves numbers lets DequantizeLinear pass. Confirmed for
Conv, Gemm and Add by running OpenVINO, which tells the type of each kernel
(tests/bench/openvino_run.py); the other rules are by their structure only.
"""

from __future__ import annotations

from onnxslim.targets.base import StaticRule, Target
from onnxslim.targets.forms import INT8, UINT8, Form

_MOVE = StaticRule("move", "same", "")

OPENVINO = Target(
    name="openvino",
    static={
        "Conv": StaticRule("linear", "optional", "Convolution", weight=1, bias=2, weight_axis=0),
        "Gemm": StaticRule(
            "linear",
            "optional",
            "FullyConnected",
            weight=1,
            bias=2,
            attributes={"alpha": (1.0,), "beta": (1.0,), "transA": (0,)},
        ),
        "MatMul": StaticRule("linear", "optional", "FullyConnected", weight=1, weight_axis=1),
        "Add": StaticRule("compute", "optional", "Eltwise", inputs=(0, 1)),
        "Concat": StaticRule("move", "same", "", inputs=None),
        "AveragePool": StaticRule("compute", "optional", "Pooling"),
        "GlobalAveragePool": StaticRule("compute", "optional", "Pooling"),
        "MaxPool": _MOVE,
        "Reshape": _MOVE,
        "Transpose": _MOVE,
        "Squeeze": _MOVE,
        "Unsqueeze": _MOVE,
        "Flatten": _MOVE,
        "Relu": StaticRule("absorbed", "absorbed", ""),
        "Clip": StaticRule("absorbed", "absorbed", ""),
    },
    forms={"int8": Form(UINT8, INT8, bias="float32", affine=False)},
    local=False,
    schemes=frozenset({"int8"}),
)
