"""The time of each kernel: those of the optimized graph, in order, as long as they take."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.runtime.kernels import kernel_times, rounds_of
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


def test_subgraphs_are_in_the_time_of_the_node_that_has_them() -> None:
    model = ir.parse_text(
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "g (bool c, float[512,512] x) => (float[512,512] y) { p = Exp(x) q = If(c) <"
        "then_branch = t () => (float[512,512] a) { m = MatMul(p, x) a = MatMul(m, x) },"
        "else_branch = e () => (float[512,512] b) { b = Abs(p) }> y = Softmax(q) }"
    )
    feed = {"c": np.asarray(True), "x": np.ones((512, 512), np.float32)}
    found = kernel_times(model, feed, seconds=0.1)
    assert [kernel.node.op_type for kernel in found] == ["Exp", "If", "Softmax"]
    assert found[1].ms > found[0].ms + found[2].ms  # 268 million products


def test_kernels_that_the_profile_does_not_tell_apart_have_no_times() -> None:
    assert rounds_of([("a", "Exp"), ("b", "Abs")], [_event("a", "Exp"), _event("c", "Abs")]) == []
    assert rounds_of([("a", "Exp"), ("b", "Abs")], [_event("a", "Exp")]) == []


def _event(name: str, op: str) -> dict[str, Any]:
    return {"name": f"{name}_kernel_time", "dur": 5, "args": {"op_name": op, "node_index": "0"}}


def test_a_feed_that_does_not_fit_is_refused() -> None:
    model = build(NET, {"w": (256, 64), "v": (64, 256)})
    with pytest.raises(RuntimeUnavailable, match="cannot run"):
        kernel_times(model, {"x": np.ones((8, 3), np.float32)}, seconds=0)
