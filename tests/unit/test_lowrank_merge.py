"""Pairs that do not pay become one layer that gives the same; others stay."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Editor
from onnxslim.passes.lowrank.merge import merge_pairs
from onnxslim.runtime.session import open_session
from tests.unit.test_lowrank_pass import build

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
MATMULS = HEAD + "g (float[N,16] x) => (float[N,12] y) { h = MatMul(x, w1)\n y = MatMul(h, w2) }"
GEMMS = HEAD + (
    "g (float[N,16] x) => (float[N,12] y) { h = Gemm <alpha = 0.5, beta = 2.0> (x, w1, b1)\n"
    " y = Gemm <transB = 1> (h, w2, b2) }"
)
CONVS = HEAD + (
    "g (float[N,4,9,9] x) => (float[N,12,5,5] y) { h = Conv <kernel_shape = [3, 3],"
    " strides = [2, 2], pads = [1, 1, 1, 1]> (x, w1, b1)\n"
    " y = Conv <kernel_shape = [1, 1]> (h, w2) }"
)
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "matmul": {"w1": (16, 16), "w2": (16, 12)},
    "gemm": {"w1": (16, 16), "b1": (16,), "w2": (12, 16), "b2": (12,)},
    "conv": {"w1": (16, 4, 3, 3), "b1": (16,), "w2": (12, 16, 1, 1)},
}
INPUTS = {"matmul": (5, 16), "gemm": (5, 16), "conv": (2, 4, 9, 9)}
TEXTS = {"matmul": MATMULS, "gemm": GEMMS, "conv": CONVS}


@pytest.mark.parametrize("kind", ["matmul", "gemm", "conv"])
def test_a_pair_that_does_not_pay_is_merged_and_gives_the_same(kind: str) -> None:
    model = build(TEXTS[kind], SHAPES[kind])
    x = np.random.default_rng(0).standard_normal(INPUTS[kind]).astype(np.float32)
    wanted = open_session(model).run({"x": x})["y"]
    assert merge_pairs(model, Editor(model)) == 1
    ir.verify(model)
    assert len(list(model.graph)) == 1
    found = open_session(model).run({"x": x})["y"]
    # float32 rounding of sums of 36 products
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_a_chain_of_three_becomes_one() -> None:
    text = MATMULS.replace("y = MatMul(h, w2)", "i = MatMul(h, w3)\n y = MatMul(i, w2)")
    model = build(text, {**SHAPES["matmul"], "w3": (16, 16)})
    assert merge_pairs(model, Editor(model)) == 2
    assert len(list(model.graph)) == 1


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        (MATMULS, {"w1": (16, 4), "w2": (4, 12)}),
        (MATMULS.replace("y = MatMul(h, w2)", "z = MatMul(h, w2)\n s = ReduceSum(h)\n"
                         " y = Add(z, s)"), SHAPES["matmul"]),
        (MATMULS.replace("y = MatMul(h, w2)", "r = Relu(h)\n y = MatMul(r, w2)"),
         SHAPES["matmul"]),
        (CONVS.replace("<kernel_shape = [1, 1]>", "<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"),
         {**SHAPES["conv"], "w2": (12, 16, 3, 3)}),
    ],
    ids=["it pays", "the middle is read", "an activation between", "a kernel"],
)  # fmt: skip
def test_what_stays(text: str, shapes: dict[str, tuple[int, ...]]) -> None:
    model = build(text, shapes)
    before = ir.to_bytes(model)
    assert merge_pairs(model, Editor(model)) == 0
    assert ir.to_bytes(model) == before
