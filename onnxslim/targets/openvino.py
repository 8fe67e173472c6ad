"""OpenVINO on CPUs: Q and DQ in front of layers, uint8 activations, float32 biases.

Weights are symmetric, with one scale per output channel, activations have one scale per tensor;
both inputs of Add are quantized; what moves numbers lets DequantizeLinear pass. Confirmed for
Conv, ConvTranspose, Gemm and Add by running OpenVINO, which tells the type of each kernel
(tests/bench/openvino_run.py); the other rules are by their structure only.

On x86-64 without VNNI its sums saturate as those of ONNX Runtime do (see ort_cpu.py), so that
weights have 7 bits in the table for those: there OpenVINO 2026.0 gives the outputs of a small ViT
at 35.5 dB, with weights of 8 bits at 24.1.
"""

from __future__ import annotations

from dataclasses import replace

from onnxslim.targets.base import StaticRule, Target
from onnxslim.targets.forms import INT7, INT8, UINT8, Form
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

OPENVINO_AVX2 = replace(
    OPENVINO,
    name="openvino-avx2",  # also AVX-512 without VNNI
    forms={"int8": replace(OPENVINO.forms["int8"], weight=INT7)},
)
