"""What is rewritten before quantizing, so that more becomes int8."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Editor
from onnxslim.passes.quant.prepare.canonical import canonicalize
from tests.quantizing import build, feeds, operators, outputs


@pytest.mark.parametrize("op", ["Max", "Min"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_one_bound_becomes_a_clip_with_the_same_result(op: str, shape: tuple[int, ...]) -> None:
    text = f"net (float[N,4,6] x) => (float[N,4,6] y) {{ y = {op}(b, x) }}"
    model = build(text, {"b": np.full(shape, 0.3, np.float32)})
    before = ir.snapshot(model)
    canonicalize(Editor(model))
    ir.verify(model)
    assert operators(model) == {"Clip": 1}
    for feed in feeds(before):
        assert (outputs(model, feed)[0] == outputs(before, feed)[0]).all()


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("net (float[N,4] x) => (float[1,N,4] y) { y = Max(x, b) }", np.ones((1, 1, 1))),
        ("net (float[N,4] x) => (float[N,4] y) { y = Max(x, b) }", np.ones(4)),
        ("net (float[N,4] x) => (float[N,4] y) { y = Max(x, b, x) }", np.ones(1)),
        ("net (float[N,4] x, float[N,4] z) => (float[N,4] y) { y = Max(x, z) }", np.ones(1)),
    ],
    ids=["another rank", "one for each channel", "three inputs", "no constant"],
)
def test_other_bounds_stay(text: str, bound: ir.Array) -> None:
    model = build(text, {"b": bound.astype(np.float32)})
    canonicalize(Editor(model))
    assert operators(model) == {"Max": 1}


def test_whole_numbers_stay() -> None:
    model = build("net (int64[N] x) => (int64[N] y) { y = Max(x, b) }", {"b": np.array([3])})
    canonicalize(Editor(model))
    assert operators(model) == {"Max": 1}
