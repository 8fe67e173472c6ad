"""The time of each kernel: those of the optimized graph, in order, as long as they take."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.runtime.kernels import kernel_times
from onnxslim.runtime.session import open_session
from tests.quantizing import build, feeds

NET = (
    "net (float[8,256] x) => (float[8,256] y)"
    " { [large] a = MatMul(x, w) [small] b = Softmax(a) [last] y = MatMul(b, v) }"
)


def test_the_kernels_are_those_that_run_and_their_times_add_up() -> None:
    model = build(NET, {"w": (256, 2048), "v": (2048, 256)})
    (feed,) = feeds(model, 1)
    found = kernel_times(model, feed, seconds=0.2)
    assert [k.node.name for k in found] == ["large", "small", "last"]
    session, total = open_session(model), sum(kernel.ms for kernel in found)
    start = perf_counter()
    for _ in range(20):
        session.run(feed)
    whole = (perf_counter() - start) / 20 * 1e3
    assert found[0].ms > 2 * found[1].ms  # 4 million products, and 16,000 exponentials
    assert total / 5 < whole < 50 * total  # a busy machine makes runs longer


def test_subgraphs_have_no_times() -> None:
    model = ir.parse_text(
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "g (bool c, float[2] x) => (float[2] y) { y = If(c) <"
        "then_branch = t () => (float[2] a) { a = Neg(x) },"
        "else_branch = e () => (float[2] b) { b = Abs(x) }> }"
    )
    feed = {"c": np.asarray(True), "x": np.ones(2, np.float32)}
    assert kernel_times(model, feed, seconds=0) == []


def test_a_feed_that_does_not_fit_is_refused() -> None:
    model = build(NET, {"w": (256, 64), "v": (64, 256)})
    with pytest.raises(RuntimeUnavailable, match="cannot run"):
        kernel_times(model, {"x": np.ones((8, 3), np.float32)}, seconds=0)
