"""ONNX Runtime on the CPU (x86-64 with VNNI, also Arm): what becomes an int8 kernel.

Activations are uint8 with one scale per tensor, weights int8 with one scale per output channel
and zero point 0, biases int32 with scale x * w. Read off ONNX Runtime's graph transformers
(qdq_selector_action_transformer.cc, qdq_selectors.cc) and held by tests that look for these
kernels in the optimized graph.
"""

from __future__ import annotations

from onnxslim.targets.base import StaticRule, Target


def _move(*inputs: int) -> StaticRule:
    """Rearranges integers; the Q and DQ around it are dropped when their parameters are equal."""
    return StaticRule("move", "same", "", inputs or (0,))


def _compute(kernel: str, **more: object) -> StaticRule:
    return StaticRule("compute", "required", kernel, **more)  # type: ignore[arg-type]


_ABSORBED = StaticRule("absorbed", "absorbed", "")

ORT_CPU = Target(
    name="ort-cpu",
    rank_multiple=8,
    static={
        "Conv": StaticRule("linear", "required", "QLinearConv", weight=1, bias=2, weight_axis=0),
        "Gemm": StaticRule(
            "linear",
            "optional",
            "QGemm",
            weight=1,
            bias=2,
            attributes={"alpha": (1.0,), "beta": (1.0,), "transA": (0,)},
        ),
        "MatMul": StaticRule("linear", "float", "MatMulIntegerToFloat", weight=1, weight_axis=1),
        "Add": _compute("QLinearAdd", inputs=(0, 1), constants=True),
        "Mul": _compute("QLinearMul", inputs=(0, 1), constants=True),
        "Concat": _compute("QLinearConcat", inputs=None, constants=True),
        "AveragePool": _compute("QLinearAveragePool"),
        "GlobalAveragePool": _compute("QLinearGlobalAveragePool"),
        "LeakyRelu": _compute("QLinearLeakyRelu"),
        "Sigmoid": _compute("QLinearSigmoid", fixed_range=(0.0, 1.0)),
        "Relu": _ABSORBED,
        "Clip": _ABSORBED,
        "Reshape": _move(),
        "Transpose": _move(),
        "Squeeze": _move(),
        "Unsqueeze": _move(),
        "Flatten": _move(),
        "Slice": _move(),
        "Gather": _move(),
        "Tile": _move(),
        "Expand": _move(),
        "MaxPool": _move(),
        "Resize": StaticRule("move", "same", "", attributes={"mode": ("nearest", b"nearest")}),
        "Split": _move(),
    },
    dynamic={
        "MatMul": "DynamicQuantizeMatMul",
        "Gemm": "DynamicQuantizeMatMul",
        "LSTM": "DynamicQuantizeLSTM",
    },
    # Measured on float32 against the elementary operators. Not here, as they are slower: Swish,
    # whose two operators the runtime fuses by itself, and ReduceL2 and ReduceSumSquare.
    fused=frozenset(
        {
            "Gelu",
            "HardSigmoid",
            "HardSwish",
            "LayerNormalization",
            "Mish",
            "RMSNormalization",
            "Softmax",
        }
    ),
)
