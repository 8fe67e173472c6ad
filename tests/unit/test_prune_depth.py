"""Residual blocks: which are found, which leave, and what decides."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.shapes import Shapes
from onnxslim.ir import Array, Model
from onnxslim.passes.prune.depth import Block, blocks, drop
from onnxslim.pipeline.base import Context
from tests.pipelines import context
from tests.quantizing import build, feeds
from tests.unit.test_prune_pass import error, prune

NET = """g (float[N,16] x) => (float[N,4] y) {
  a = Gemm (x, w0, b0)  s = Relu (a)
  h1 = MatMul (s, w1)  r1 = Relu (h1)  o1 = MatMul (r1, w2)  t = Add (s, o1)
  h2 = MatMul (t, w3)  r2 = Relu (h2)  o2 = MatMul (r2, w4)  u = Add (o2, t)
  y = Gemm (u, w5, b5) }"""


def net(second: float = 0.01) -> Model:
    """Two residual blocks of 32 features; `second` is how much the latter changes."""
    rng = np.random.default_rng(2)

    def weight(rows: int, columns: int, scale: float = 1.0) -> Array:
        found: Array = rng.normal(size=(rows, columns)) / np.sqrt(rows) * scale
        return found.astype(np.float32)

    return build(
        NET,
        {
            "w0": weight(16, 32), "b0": (32,), "w1": weight(32, 48), "w2": weight(48, 32),
            "w3": weight(32, 48), "w4": weight(48, 32, second), "w5": weight(32, 4), "b5": (4,),
        },
    )  # fmt: skip


def found(model: Model) -> list[Block]:
    for ctx in context():
        assert isinstance(ctx, Context)
        return blocks(model, Shapes().compute(model, ctx.analyses))
    raise AssertionError("no context")


def test_blocks_are_sums_of_a_value_and_what_layers_make_of_it() -> None:
    assert found(net()) == [Block("s", "t"), Block("t", "u")]


@pytest.mark.parametrize(
    "body",
    [
        "a = MatMul (x, w)  b = MatMul (x, v)  s = Add (a, b)  y = Relu (s)",
        "a = Relu (x)  s = Add (x, a)  y = Relu (s)",
        "a = MatMul (x, w)  y = Add (x, a)",
        "a = MatMul (x, u)  s = Add (x, a)  y = Relu (s)",
    ],
    ids=["two branches", "no layer", "an output of the model", "one position for many"],
)
def test_what_is_no_block(body: str) -> None:
    shape = "N,1" if "u)" in body else "N,6"
    text = f"g (float[{shape}] x) => (float[N,6] y) {{ {body} }}"
    assert found(build(text, {"w": (6, 6), "v": (6, 6), "u": (1, 6)})) == []


def test_without_a_block_its_input_comes_out() -> None:
    model = net(second=0.0)
    original, samples = ir.snapshot(model), feeds(model, 4)
    drop(model, Block("t", "u"))
    ir.verify(model)
    assert len(list(model.graph)) == len(list(original.graph)) - 4
    assert error(model, original, samples) < 1e-12


def test_a_block_that_hardly_matters_leaves_and_the_other_stays() -> None:
    model = net()
    samples = feeds(model, 60, {"N": 16})
    original = ir.snapshot(model)
    result = prune(model, samples[:40], ratio=0.99, multiple=1, depth=0.01)
    assert [row.node for row in result.layers if "residual" in row.action] == ["u"]
    assert result.stats["blocks"] == 1
    assert float(result.stats["macs_ratio"]) < 0.6
    assert error(model, original, samples[40:]) < 0.01


def test_blocks_stay_where_they_matter_and_that_is_said() -> None:
    model = net(second=1.0)
    result = prune(model, feeds(model, 40, {"N": 16}), ratio=0.9, multiple=1, depth=1e-6)
    assert "blocks" not in result.stats
    assert any("no residual block can leave within depth=1e-06" in note for note in result.notes)


def test_the_units_that_go_besides_make_up_the_budget() -> None:
    model = net()
    result = prune(model, feeds(model, 40, {"N": 16}), ratio=0.4, multiple=1, depth=0.01)
    assert result.stats["blocks"] == 1
    assert 0.25 < float(result.stats["macs_ratio"]) <= 0.4
