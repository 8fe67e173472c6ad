"""What a file claims of shapes is not believed: simplify does the same with wrong claims."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from onnxslim import ir
from onnxslim.runtime.session import open_session
from tests.random_graphs import Case, cases
from tests.simplified import simplify

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'

# Each claims that what is reshaped has the shape of x already.
MISLEADING = [
    f"""{HEAD} g (float[N, W, 6] x) => (float[N, W, 6] y) <int64[3] s = {{0, -1, 3}}> {{
      y = Reshape (x, s) }}""",
    f"""{HEAD} g (float[N, W, 6] x) => (float[N, W, 6] y)
      <int64[3] s = {{0, -1, 3}}, float[N, W, 6] t> {{ t = Reshape (x, s) y = Relu (t) }}""",
    f"""{HEAD} g (float[N, W, 6] x) => (float[A, B, C] y)
      <int64[3] s = {{0, -1, 3}}, float[N, W, 6] t> {{
      t = Reshape (x, s) u = Shape (t) y = Reshape (t, u) }}""",
    f"""{HEAD} g (float[N, W, 6] x) => (float[N, W, 6] y)
      <int64[1] a = {{1}}, int64[1] b = {{0}}, int64[1] e = {{1000}}, float[N, 8, 6] t> {{
      r = Relu (x) t = Slice (r, b, e, a) y = Slice (t, b, e, a) }}""",
    f"""{HEAD} g (float[N, W, 6] x) => (float[N, W, 6] y) <float[N, W, 6] t> {{
      t = Transpose <perm = [0, 2, 1]> (x)
      u = Shape (t) v = ConstantOfShape (u) y = Add (t, v) }}""",
    f"""{HEAD} g (float[N, W, 6] x) => (float[1, 40, 6] y)
      <int64 one = {{1}}, int64[1] zero = {{0}}, int64[1] m = {{-1}}, float[N, 40, 6] t> {{
      t = Relu (x) u = Shape (t) w = Gather (u, one) v = Unsqueeze (w, zero)
      z = Concat <axis = 0> (m, v) y = Reshape (t, z) }}""",
]


@pytest.mark.parametrize("text", MISLEADING)
@pytest.mark.parametrize("width", [2, 7])
def test_a_wrong_claim_misleads_nobody(text: str, width: int) -> None:
    model = ir.parse_text(text)
    feed = {"x": np.arange(2 * width * 6, dtype=np.float32).reshape(2, width, 6)}
    before = open_session(model, optimize="none").run(feed)["y"]
    simplify(model)
    ir.verify(model)
    after = open_session(model, optimize="none").run(feed)["y"]
    assert after.shape == before.shape
    assert after.tobytes() == before.tobytes()


def essence(model: ir.Model) -> Sequence[object]:
    """Nodes with what they read, and constants: all but what is claimed."""
    return [
        (ir.op(node), [v.name if v else "" for v in node.inputs], [v.name for v in node.outputs])
        for node in ir.nodes(model)
    ] + [
        (name, value.const_value.tobytes() if value.const_value else b"")
        for name, value in sorted(model.graph.initializers.items())
    ]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_claims_about_inner_values_change_nothing(case: Case) -> None:
    plain, claimed = ir.parse_text(case.text), ir.parse_text(case.text)
    for scope in ir.scopes(claimed):
        for node in scope:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.shape = ir.Shape([3, "N", 2])
    simplify(plain)
    simplify(claimed)
    assert essence(claimed) == essence(plain)
