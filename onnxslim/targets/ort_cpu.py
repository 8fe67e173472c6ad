"""ONNX Runtime on the CPU: what becomes an int8 kernel, by instruction set.

Activations are uint8 with one scale per tensor, weights int8 with one scale per output channel
and zero point 0, biases int32 with scale x * w. Read off ONNX Runtime's graph transformers
(qdq_selector_action_transformer.cc, qdq_selectors.cc) and held by tests that look for these
kernels in the optimized graph.

x86-64 without VNNI multiplies by VPMADDUBSW, which adds two products u8 * s8 in 16 bits and
saturates: 2 * 255 * 127 > 2^15 - 1 > 2 * 255 * 63. Weights have 7 bits there, so that no sum
saturates. VNNI and Arm's dot products add in 32 bits.

QLinearConv multiplies group by group, where the float kernel takes several at once. Measured on
3x3, 256 channels, 28x28, speed against float: 3.9 with one group, 2.6 with 64 channels per group,
2.0 with 32, 0.9 with 16, 0.75 with 8, 0.33 with 4, 0.08 with 1 that makes two; depthwise 0.9.
A layer in float costs two conversions, so that 8 is about where it pays. First layers at 224x224,
both with the conversion of their input or output: 3x3 of 3 channels to 16, 32, 64: 0.41, 0.69, 0.97
(to 64 without stride 1.19); 7x7 to 32: 1.26; 4x4 patches of 3 to 96: 1.21; 3x3 of 4 to 32: 1.39.

Float convolutions run with their channels in blocks, of 8 with AVX2. Of 1x1 ones there 8, 16, 24
and 32 output channels take a time as of 20, 29, 38 and 40 GMAC/s. One that reads 4 channels leaves
the layout: 4 to 16 at 112x112, with the change before it, takes 105 us where 8 to 24 takes 69.

The product of two computed tensors stays in float: with its two conversions int8 is 1.0 to 1.3
times as fast (12 x 197 x 64 x 197: 1.24), and both operands of attention lose accuracy.
"""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

from onnxslim.targets.assumed import WITHOUT_VNNI
from onnxslim.targets.base import Target
from onnxslim.targets.forms import INT7, UINT8, Form
from onnxslim.targets.rules import ACTIVATIONS, MOVE, MOVES, computed, linear

_LAYERS = linear("optional", "QLinearConv", "QGemm", "MatMulIntegerToFloat")

ORT_CPU_VNNI = Target(
    name="ort-cpu-vnni",
    rank_multiple=8,
    static={
        "Conv": replace(_LAYERS["Conv"], output="required", least_group=8, stem=(27, 32)),
        "Gemm": _LAYERS["Gemm"],
        "MatMul": replace(_LAYERS["MatMul"], output="float"),
        **MOVES,
        **dict.fromkeys(("Slice", "Gather", "Tile", "Expand", "Split"), MOVE),
        **ACTIVATIONS,
        "Resize": replace(MOVE, attributes={"mode": ("nearest", b"nearest")}),
        "Add": computed("QLinearAdd", inputs=(0, 1), constants=True),
        "Mul": computed("QLinearMul", inputs=(0, 1), constants=True),
        "Concat": computed("QLinearConcat", inputs=None, constants=True),
        "AveragePool": computed("QLinearAveragePool"),
        "GlobalAveragePool": computed("QLinearGlobalAveragePool"),
        "LeakyRelu": computed("QLinearLeakyRelu"),
        "Sigmoid": computed("QLinearSigmoid", fixed_range=(0.0, 1.0)),
        "HardSwish": computed("QLinearMul", floor=-3.0),
    },
    dynamic={
        "MatMul": "DynamicQuantizeMatMul",
        "Gemm": "DynamicQuantizeMatMul",
        "LSTM": "DynamicQuantizeLSTM",
    },
    rounds=frozenset({"Conv", "ConvTranspose", "Gemm"}),
    own={
        "Attention": "com.microsoft::MultiHeadAttention",
        "CausalAttention": "com.microsoft::GroupQueryAttention",
        "Conv": "com.microsoft::FusedConv",
        "MatMul": "com.microsoft::MatMulIntegerToFloat",
        "LSTM": "com.microsoft::DynamicQuantizeLSTM",
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

ORT_CPU_AVX2 = replace(
    ORT_CPU_VNNI,
    name="ort-cpu-avx2",  # also AVX-512 without VNNI
    forms={"int8": Form(UINT8, INT7)},
    assumed=WITHOUT_VNNI,
)

ORT_CPU_ARM = replace(ORT_CPU_VNNI, name="ort-cpu-arm")


def ort_cpu_here() -> Target:
    """The table of this machine's instruction set, named ort-cpu."""
    return replace(by_instructions(platform.machine(), _flags()), name="ort-cpu")


def for_processor(target: Target) -> Target:
    """The table of one instruction set, which may be that of another machine."""
    own = by_instructions(platform.machine(), _flags())
    return replace(target, elsewhere=target.name != own.name)


def by_instructions(machine: str, flags: frozenset[str]) -> Target:
    """The table for a machine (as `platform.machine` calls it) and the flags of its CPU.

    An x86-64 machine that does not tell that it has VNNI gets the guard against saturation.
    """
    if machine.lower() in ("aarch64", "arm64"):
        return ORT_CPU_ARM
    return ORT_CPU_VNNI if flags & {"avx512_vnni", "avx_vnni"} else ORT_CPU_AVX2


def _flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The flags of the first CPU, where the operating system lists them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2].split() for line in lines if line.startswith("flags"))
    return frozenset(next(flags, list[str]()))
