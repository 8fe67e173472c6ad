"""Every operator in torch against ONNX Runtime, on the models of ONNX's own backend tests."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from onnx import helper  # noqa: TID251 - one node at a time

pytest.importorskip("torch", reason="torch is not installed: make test-distill")

from onnxslim import ir
from onnxslim.ir import Array
from onnxslim.passes.distill.graph.api import torch
from onnxslim.passes.distill.graph.call import Unsupported
from onnxslim.passes.distill.graph.convert import to_torch
from onnxslim.passes.distill.graph.program import Program, StepFailed
from onnxslim.passes.distill.graph.table import OPS
from tests.corpus import Corpus, fix_inputs, run

TOLERANCE = 1e-4
"""Of the largest number, or of 1."""

HALF = 2.0**-10
"""Rounding to float16, which the runtime does between nodes and torch, in float32, does not."""

AGREE_AT_LEAST = 1050
"""Of the models that ONNX Runtime runs; fewer would mean that operators were lost."""

KNOWN = {
    "test_identity_sequence": "sequences are no tensors",
    "test_identity_opt": "optionals are no tensors",
    "test_mod_fmod_0_signed_zero_float16": "the remainder of a division by zero is signed",
    "test_mod_fmod_0_signed_zero_float32": "the remainder of a division by zero is signed",
    "test_mod_fmod_0_signed_zero_float64": "the remainder of a division by zero is signed",
}


F, I8 = np.float32, np.int8
RNG = np.random.default_rng(0)


def floats(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(F)


def codes(*shape: int, kind: Any = np.uint8) -> Array:
    low = 0 if kind == np.uint8 else -100
    return RNG.integers(low, low + 200, shape).astype(kind)


MORE: list[tuple[str, dict[str, Any], list[Array | None]]] = [
    ("CumSum", {"reverse": 1}, [floats(2, 5), np.array(1)]),
    ("DequantizeLinear", {"axis": 1}, [codes(2, 3, 4), floats(3) ** 2, codes(3)]),
    ("DequantizeLinear", {"axis": 1, "block_size": 2},
     [codes(3, 4, kind=I8), floats(3, 2) ** 2, codes(3, 2, kind=I8)]),
    ("QuantizeLinear", {}, [floats(3, 4), np.array(0.02, F), np.array(120, np.uint8)]),
    ("QuantizeLinear", {"axis": 0},
     [floats(3, 4), floats(3) ** 2 / 50 + F(0.01), codes(3, kind=I8)]),
    ("Dropout", {}, [floats(2, 3)]),
    ("GlobalLpPool", {"p": 2}, [floats(2, 3, 4, 5)]),
    ("LayerNormalization", {"axis": 1}, [floats(2, 3, 4), floats(3, 4), floats(3, 4)]),
    ("MatMulInteger", {},  # 7 bits: sums of two products saturate on processors without VNNI
     [codes(3, 4) // 2, codes(4, 5, kind=I8), np.array(100, np.uint8)]),
    ("OneHot", {"axis": 1}, [np.array([[1, 4], [0, -1]]), np.array(4), np.array([2, 5], F)]),
    ("Upsample", {"mode": "nearest"}, [floats(1, 2, 3, 4), np.array([1, 1, 2, 1.5], F)]),
    ("com.microsoft::BiasGelu", {}, [floats(2, 4), floats(4)]),
    ("com.microsoft::DequantizeLinear", {}, [codes(4, kind=np.int16), np.array(0.1, F)]),
    ("com.microsoft::FusedConv", {"pads": [1, 1, 1, 1], "group": 2},
     [floats(2, 4, 5, 5), floats(6, 2, 3, 3), floats(6)]),
    ("com.microsoft::FusedConv", {"activation": "Relu"},
     [floats(2, 4, 5, 5), floats(6, 4, 3, 3), floats(6), floats(2, 6, 3, 3)]),
    ("com.microsoft::FusedConv", {"activation": "Clip", "activation_params": [-0.5, 1.5]},
     [floats(2, 4, 5, 5), floats(6, 4, 3, 3)]),
    ("com.microsoft::FusedConv", {"activation": "Sigmoid"},
     [floats(2, 4, 5, 5), floats(6, 4, 3, 3)]),
    ("com.microsoft::FusedConv", {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]},
     [floats(2, 4, 5, 5), floats(6, 4, 3, 3)]),
    ("com.microsoft::FusedConv", {"activation": "Tanh"},
     [floats(2, 4, 5, 5), floats(6, 4, 3, 3)]),
    ("com.microsoft::FusedConv", {"activation": "LeakyRelu", "activation_params": [0.2]},
     [floats(2, 4, 5, 5), floats(6, 4, 3, 3)]),
    ("com.microsoft::FusedMatMul", {"alpha": 0.5, "transA": 1}, [floats(2, 4, 3), floats(2, 4, 5)]),
    ("com.microsoft::Gelu", {}, [floats(2, 4)]),
    ("com.microsoft::MatMulIntegerToFloat", {},
     [codes(2, 3, 4) // 2, codes(4, 5, kind=I8), np.array(0.1, F), floats(5) ** 2,
      np.array(100, np.uint8), codes(5, kind=I8), floats(5)]),
    ("com.microsoft::MultiHeadAttention", {"num_heads": 2},
     [floats(2, 3, 8), floats(2, 5, 8), floats(2, 5, 8), floats(24)]),
    ("com.microsoft::QuantizeLinear", {},
     [floats(4), np.array(0.1, F), np.array(3, np.int16)]),
    ("com.microsoft::QuickGelu", {"alpha": 1.5}, [floats(2, 4)]),
    ("com.microsoft::SkipLayerNormalization", {}, [floats(2, 3, 4), floats(2, 3, 4), floats(4),
                                                   floats(4), floats(4)]),
    ("com.microsoft::SkipSimplifiedLayerNormalization", {},
     [floats(2, 3, 4), floats(2, 3, 4), floats(4)]),
]  # fmt: skip


@pytest.mark.parametrize("case", MORE, ids=[f"{i}-{case[0]}" for i, case in enumerate(MORE)])
def test_what_the_backend_tests_lack_agrees_with_the_runtime(
    case: tuple[str, dict[str, Any], list[Array | None]],
) -> None:
    op, attributes, inputs = case
    domain, _, name = op.rpartition("::")
    old = {"Upsample": 9}.get(name, 21)
    names = [f"x{i}" for i in range(len(inputs))]
    typed = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
             for n, x in zip(names, inputs, strict=True) if x is not None]  # fmt: skip
    node = helper.make_node(name, names, ["y"], domain=domain, **attributes)
    made = {"MatMulInteger": np.dtype(np.int32)}
    if name == "QuantizeLinear" and inputs[2] is not None:
        made[name] = inputs[2].dtype
    kind = helper.np_dtype_to_tensor_dtype(made.get(name, np.dtype(F)))
    graph = helper.make_graph([node], "g", typed, [helper.make_tensor_value_info("y", kind, None)])
    imports = [helper.make_opsetid("", old), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=10)
    feed = {n: x for n, x in zip(names, inputs, strict=True) if x is not None}
    wanted = run(proto.SerializeToString(), feed)
    assert wanted is not None
    model = ir.load(proto)
    if name == "QuantizeLinear" and inputs[2] is not None:  # the type of a zero point must be known
        fix_inputs(model, {"x2": inputs[2]})
    found = answer(model, feed)
    assert found is not None
    assert why_apart(wanted[0], found[0]) == ""


def answer(model: ir.Model, feed: dict[str, Any]) -> list[Array] | None:
    """What torch computes; None where it says that it cannot."""
    try:
        program = Program(model)
        if program.borders:
            return None
        fed = {n: to_torch(np.asarray(feed[n]), program.dtype, "cpu") for n in program.inputs}
        with torch.no_grad():
            found = program.run(fed)
    except (StepFailed, Unsupported):
        return None
    return [found[name].numpy() for name in program.outputs]


def why_apart(one: Any, two: Array) -> str:
    """How two outputs differ; empty where they agree."""
    if not isinstance(one, np.ndarray):
        return "no tensor"
    wanted = cast("Array", one)
    if wanted.shape != two.shape:
        return f"shape {two.shape}, not {wanted.shape}"
    x, y = wanted.astype(np.float64), two.astype(np.float64)
    finite = np.isfinite(x)
    if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return "other infinities"
    limit = HALF if wanted.dtype == np.float16 else TOLERANCE
    size = max(1.0, float(np.abs(x[finite]).max(initial=0)))
    apart = float(np.abs(x[finite] - y[finite]).max(initial=0))
    return "" if apart <= limit * size else f"differs by {apart:.3g} of {size:.3g}"


def test_torch_computes_what_the_runtime_does_or_says_that_it_cannot() -> None:
    wrong: dict[str, str] = {}
    agreed, seen = 0, set[str]()
    for name, proto, feed, outputs in Corpus().runnable():
        model = ir.load(proto)
        found = answer(model, feed)
        if found is None:
            continue
        reasons = [why_apart(a, b) for a, b in zip(outputs, found, strict=True)]
        halves = any(t.dtype == ir.DataType.FLOAT16 for t in ir.infer_types(model).values())
        if any(reasons) and halves and all(not r or _within_half(r) for r in reasons):
            reasons = []
        if any(reasons):
            wrong[name] = "; ".join(filter(None, reasons))
        else:
            agreed += 1
            seen |= {ir.op(node) for node in model.graph}
    assert {k: v for k, v in wrong.items() if k not in KNOWN} == {}
    assert agreed >= AGREE_AT_LEAST
    assert set(OPS) - seen <= {op for op, _, _ in MORE}


def _within_half(reason: str) -> bool:
    """Models that compute in float16 on the way and give float32."""
    words = reason.split()
    return reason.startswith("differs") and float(words[2]) <= HALF * float(words[4])
