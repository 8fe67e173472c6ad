"""A model of three nodes with a dynamic batch, for tests of what surrounds the passes."""

from __future__ import annotations

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x) => (float[N, 3] y)
<float[4, 3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}, float[3] b = {0.5, 0.25, 0}> {
  c = Add(b, b)
  t = MatMul(x, w)
  y = Add(t, c)
}
"""
