"""Gradients of every operator that has one against finite differences, in double precision."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed: make test-distill")

from onnxslim.passes.distill.graph.api import torch
from onnxslim.passes.distill.graph.call import Call
from onnxslim.passes.distill.graph.fuse import run_fused
from onnxslim.passes.distill.graph.ops.quantization import rounded
from onnxslim.passes.distill.graph.table import OPS

X = (2, 3, 4)
IMAGE = (2, 4, 6, 5)
V: dict[str, Any] = {}


def ints(*values: int) -> Any:
    return torch.tensor(values, dtype=torch.int64)


STATISTICS = [torch.tensor(v, dtype=torch.float64) for v in ([0.1, 0, -1, 2], [1, 2, 0.5, 3])]
Case = tuple[str, list[Any], dict[str, Any]]
CASES: list[Case] = [
    *[(op, [X], V) for op in (
        "Abs", "Asinh", "Atan", "Cos", "Cosh", "Erf", "Exp", "HardSwish", "Identity", "Mish",
        "Neg", "Reciprocal", "Relu", "Sigmoid", "Sin", "Sinh", "Softplus", "Softsign", "Tan",
        "Tanh", "Celu", "Elu", "Gelu", "HardSigmoid", "LeakyRelu", "Selu", "Shrink", "Swish",
        "ThresholdedRelu", "Clip", "Dropout", "com.microsoft::Gelu", "com.microsoft::QuickGelu",
        "Softmax", "LogSoftmax", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax",
        "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Transpose",
        "Flatten", "LpNormalization",
    )],
    *[(op, ["positive"], V) for op in ("Log", "Sqrt", "Acosh", "ReduceLogSum")],
    *[(op, ["small"], V) for op in ("Acos", "Asin", "Atanh")],
    *[(op, [X, (3, 1)], V) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean")],
    ("Pow", ["positive", X], V),
    ("PRelu", [X, (4,)], V),
    ("Where", [torch.tensor([True, False, True, False]), X, X], V),
    ("com.microsoft::BiasGelu", [X, (4,)], V),
    ("Cast", [X], {"to": 1}),
    ("Conv", [IMAGE, (4, 2, 3, 3), (4,)], {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", [(2, 3, 9), (4, 3, 3)], {"dilations": [2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", [IMAGE, (4, 3, 3, 2), (3,)], {"strides": [2, 2], "pads": [1, 0, 0, 1]}),
    ("Gemm", [(4, 3), (5, 4), (5,)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("MatMul", [X, (4, 5)], V),
    ("Einsum", [(2, 3), (3, 4)], {"equation": "ij,jk->ik"}),
    ("com.microsoft::FusedConv", [IMAGE, (5, 4, 3, 3), (5,)], {"pads": [1, 1, 1, 1]}),
    ("com.microsoft::FusedConv", [IMAGE, (5, 4, 3, 3), (5,)],
     {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]}),
    ("com.microsoft::FusedMatMul", [X, (5, 4)], {"transB": 1, "alpha": 0.5}),
    ("com.microsoft::MultiHeadAttention", [(2, 3, 8), (2, 5, 8), (2, 5, 8)], {"num_heads": 2}),
    ("AveragePool", [IMAGE], {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]}),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("GlobalAveragePool", [IMAGE], V),
    ("GlobalMaxPool", [IMAGE], V),
    ("GlobalLpPool", [IMAGE], V),
    ("BatchNormalization", [IMAGE, (4,), (4,), *STATISTICS], V),
    ("GroupNormalization", [IMAGE, (4,), (4,)], {"num_groups": 2}),
    ("InstanceNormalization", [IMAGE, (4,), (4,)], V),
    ("LRN", [IMAGE], {"size": 3}),
    ("LayerNormalization", [X, (4,), (4,)], V),
    ("MeanVarianceNormalization", [IMAGE], V),
    ("RMSNormalization", [X, (4,)], V),
    ("com.microsoft::SkipLayerNormalization", [X, X, (4,), (4,), (4,)], V),
    ("com.microsoft::SkipSimplifiedLayerNormalization", [X, X, (4,)], V),
    ("Concat", [X, X], {"axis": 2}),
    ("DepthToSpace", [IMAGE], {"blocksize": 2, "mode": "CRD"}),
    ("Expand", [(3, 1), ints(2, 3, 4)], V),
    ("Gather", [X, ints(0, -1, 1, 0)], {"axis": 1}),
    ("GatherElements", [X, ints(0, 1).reshape(1, 1, 2)], {"axis": 1}),
    ("GatherND", [X, ints(0, 2, 1, 1).reshape(2, 2)], V),
    ("Pad", [IMAGE, ints(0, 0, 1, 2, 0, 0, 0, 1)], {"mode": "reflect"}),
    ("Reshape", [X, ints(0, -1)], V),
    ("Resize", [IMAGE, None, torch.tensor([1.0, 1.0, 1.5, 0.5])], {"mode": "cubic"}),
    ("Resize", [IMAGE, None, None, ints(2, 4, 9, 7)], {"mode": "linear"}),
    ("ScatterElements", [X, ints(0, 1).reshape(1, 1, 2), (1, 1, 2)], {"axis": 1}),
    ("ScatterND", [X, ints(0, 1).reshape(2, 1), (2, 3, 4)], V),
    ("Slice", [X, ints(-1), ints(-4), ints(1), ints(-2)], V),
    ("SpaceToDepth", [(1, 2, 4, 6)], {"blocksize": 2}),
    ("Squeeze", [(2, 1, 3), ints(1)], V),
    ("Tile", [X, ints(1, 2, 1)], V),
    ("Trilu", [X], {"upper": 0}),
    ("Unsqueeze", [X, ints(0, 4)], V),
    ("CumSum", [X, ints(1)], {"exclusive": 1, "reverse": 1}),
    ("DequantizeLinear", [X, (3,)], {"axis": 1}),
]  # fmt: skip


def _made(spec: Any, generator: Any) -> Any:
    if spec is None or isinstance(spec, torch.Tensor):
        return spec
    shape = {"positive": X, "small": X}.get(spec, spec)
    number = torch.rand(shape, generator=generator, dtype=torch.float64)
    if spec == "small":
        made = 1.2 * number - 0.6
    elif isinstance(spec, str):
        made = number + 1.5
    else:  # away from 0, where many have a kink, and never twice the same
        sign = torch.randint(0, 2, shape, generator=generator) * 2 - 1
        made = sign * (0.1 + number)
    return made.requires_grad_(True)


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_the_gradient_is_that_of_finite_differences(case: Case) -> None:
    op, specs, attributes = case
    generator = torch.Generator().manual_seed(7)
    inputs = [_made(spec, generator) for spec in specs]
    moving = [x for x in inputs if x is not None and x.requires_grad]

    def function(*given: Any) -> Any:
        own = iter(given)
        fed = [next(own) if x is not None and x.requires_grad else x for x in inputs]
        return OPS[op](Call(op, fed, attributes, 21, torch.float64))

    assert torch.autograd.gradcheck(function, tuple(moving), eps=1e-6, atol=1e-5, rtol=1e-4)


def test_every_operator_with_a_gradient_is_checked() -> None:
    """What is missing has none: it makes integers, truths or steps, or is checked below."""
    without = {
        "And", "ArgMax", "ArgMin", "CastLike", "Ceil", "Constant", "ConstantOfShape", "Equal",
        "EyeLike", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "IsInf", "IsNaN", "Less",
        "LessOrEqual", "Mod", "NonZero", "Not", "OneHot", "Or", "Range", "Round", "Shape", "Sign",
        "Size", "Split", "TopK", "Xor", "QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger",
        "Upsample", "com.microsoft::DequantizeLinear",
        "com.microsoft::MatMulIntegerToFloat", "com.microsoft::QuantizeLinear",
    }  # fmt: skip
    assert set(OPS) - without == {case[0] for case in CASES}


def test_rounding_passes_the_gradient_and_clamping_stops_it() -> None:
    x = torch.tensor([0.26, -0.9, 40.0], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    zero = torch.tensor(3, dtype=torch.uint8)
    attributes = {"output_dtype": 2}
    codes = OPS["QuantizeLinear"](
        Call("QuantizeLinear", [x, scale, zero], attributes, 21, torch.float64)
    )
    assert codes.tolist() == [6.0, 0.0, 255.0]
    back = OPS["DequantizeLinear"](
        Call("DequantizeLinear", [codes, scale, zero], {}, 21, torch.float64)
    )
    back.sum().backward()
    assert x.grad.tolist() == pytest.approx([1, 0, 0])
    # LSQ (Esser et al. 2020), eq. 3: round(v / s) - v / s inside, the bounds outside
    assert float(scale.grad) == pytest.approx((3 - 2.6) + (0 - 3) + (255 - 3))


def test_rounded_is_to_even() -> None:
    assert rounded(torch.tensor([0.5, 1.5, -2.5])).tolist() == [0, 2, -2]


@pytest.mark.parametrize("shape", [(64,), (2, 3, 4, 5)])
def test_a_pair_in_one_step_is_the_pair(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    x = 9 * torch.randn(shape, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x
    up = torch.randn(shape, generator=generator)
    zero, attributes = torch.tensor(100, dtype=torch.uint8), {"output_dtype": 2}
    found: list[list[Any]] = []
    for single in (True, False):
        own, scale = x.clone().requires_grad_(True), torch.tensor(0.1).requires_grad_(True)
        call = Call("QuantizeLinear", [own, scale, zero], attributes, 21, torch.float32)
        if single:
            y = run_fused(call)
        else:
            codes = OPS["QuantizeLinear"](call)
            call = Call("DequantizeLinear", [codes, scale, zero], {}, 21, torch.float32)
            y = OPS["DequantizeLinear"](call)
        y.backward(up)
        found.append([y.detach(), own.grad, scale.grad])
    for one, two in zip(*found, strict=True):  # sums in another order
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    assert 0 < float((found[0][1] == 0).float().mean()) < 1
