"""TensorRT with explicit quantization: Q and DQ say which layers run in int8 or fp8.

Zero points are 0; activations have one scale per tensor, weights one per output channel; biases
stay float32. Q and DQ stand at the inputs of layers only, after the activation function, because
TensorRT moves them backwards through MaxPool and the like itself. The Add of a residual block is
fused with the convolution that makes one of its inputs; the other input, the identity branch,
needs Q and DQ. The products of attention have them at both inputs. Weights alone are int4 with a
scale for each 64 or 128 inputs. Source of the symmetry, of the placement and of the blocks: NVIDIA
TensorRT documentation, "Working with Quantized Types". Tests assert the structure; no TensorRT has
run it.
"""

from __future__ import annotations

from onnxslim.targets.base import StaticRule, Target
from onnxslim.targets.forms import FP8, INT8, Blocks, Form
from onnxslim.targets.rules import ACTIVATIONS, deconv, linear, of_activations

_LAYERS = linear("optional", "conv", "gemm", "matmul")

TENSORRT = Target(
    name="tensorrt",
    static={
        **_LAYERS,
        "ConvTranspose": deconv("optional", "deconv"),
        "MatMul": of_activations(_LAYERS["MatMul"]),
        **ACTIVATIONS,
        "Add": StaticRule("residual", "optional", "conv with residual", inputs=(0, 1)),
    },
    forms={
        "int8": Form(INT8, INT8, bias="float32", affine=False),
        "fp8": Form(FP8, FP8, bias="float32", affine=False, min_opset=19),
    },
    blocks=Blocks(bits=4, sizes=(64, 128), symmetric=True),
    local=False,
    schemes=frozenset({"int8", "fp8", "weight"}),
)
