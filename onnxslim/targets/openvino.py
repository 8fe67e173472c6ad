"""OpenVINO on CPUs: Q and DQ in front of layers, uint8 activations, float32 biases.

Weights are symmetric, with one scale per output channel, activations have one scale per tensor;
both inputs of Add are quantized; what moves numbers lets DequantizeLinear pass. Confirmed for
Conv, ConvTranspose, Gemm and Add by running OpenVINO, which tells the type of each kernel
(tests/bench/openvino_run.py); the other rules are by their structure only.
"""

from __future__ import annotations

from onnxslim.targets.base import StaticRule, Target
from onnxslim.targets.forms import INT8, UINT8, Form
from onnxslim.targets.rules import ACTIVATIONS, MOVES, computed, deconv, linear, of_activations

_LAYERS = linear("optional", "Convolution", "FullyConnected", "FullyConnected")

OPENVINO = Target(
    name="openvino",
    static={
        **_LAYERS,
        "ConvTranspose": deconv("optional", "Deconvolution"),
        "MatMul": of_activations(_LAYERS["MatMul"]),
        **MOVES,
        **ACTIVATIONS,
        "Add": computed("Eltwise", "optional", inputs=(0, 1)),
        "Concat": StaticRule("move", "same", "", inputs=None),
        "AveragePool": computed("Pooling", "optional"),
        "GlobalAveragePool": computed("Pooling", "optional"),
    },
    forms={"int8": Form(UINT8, INT8, bias="float32", affine=False)},
    local=False,
    schemes=frozenset({"int8"}),
)
