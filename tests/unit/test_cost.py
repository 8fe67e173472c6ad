from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.cost import Cost, CostTable, cost_table
from onnxslim.analyses.measured import measured_ms
from onnxslim.analyses.shapes import ShapeTable
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Feed, FeedList
from onnxslim.targets.base import Target

HEAD = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>'


def cost(text: str, feed: Feed | None = None) -> CostTable:
    model = ir.parse_text(f"{HEAD} {text}")
    if feed is None:
        return cost_table(model, ShapeTable(ir.infer_types(model)))
    with ThreadPoolExecutor(1) as executor:
        env = Environment(Target("test"), executor, calib=FeedList([feed]))
        return AnalysisManager(model, env).get(Cost())


@pytest.mark.parametrize(
    ("body", "macs"),
    [
        ("(float[2, 4, 8, 8] x, float[6, 2, 3, 3] w) => (float y)"
         " { y = Conv <group = 2, pads = [1, 1, 1, 1]> (x, w) }", 2 * 6 * 64 * 2 * 9),
        ("(float[1, 4, 5] x, float[4, 3, 2] w) => (float y)"
         " { y = ConvTranspose <strides = [2]> (x, w) }", 4 * 5 * 3 * 2),
        ("(float[2, 3, 4, 5] x, float[5, 7] w) => (float y) { y = MatMul (x, w) }",
         2 * 3 * 4 * 5 * 7),
        ("(float[5, 4] x, float[7, 5] w) => (float y)"
         " { y = Gemm <transA = 1, transB = 1> (x, w) }", 4 * 5 * 7),
        ('(float[2, 3, 4] x, float[2, 4, 5] w) => (float y)'
         ' { y = Einsum <equation = "bij,bjk->bik"> (x, w) }', 2 * 3 * 4 * 5),
        ("(float[6, 2, 3] x, float[1, 20, 3] w, float[1, 20, 5] r) => (float y)"
         " { y = LSTM <hidden_size = 5> (x, w, r) }", 6 * 2 * 20 * (3 + 5)),
        ("(uint8[1, 2, 4, 4] x, uint8[3, 2, 1, 1] w) => (int32 y) { y = ConvInteger (x, w) }",
         16 * 3 * 2),
        ("(float[2, 3] x) => (float y) { y = Relu (x) }", 0),
    ],
)  # fmt: skip
def test_multiply_accumulates(body: str, macs: int) -> None:
    table = cost(f"g {body}")
    assert table.total_macs == macs
    assert not table.unknown


def test_quantized_layers_count_like_float_ones() -> None:
    table = cost("""g (float[1, 2, 4, 4] x) => (float y)
      <int8[3, 2, 1, 1] w = {1, 2, 3, 4, 5, 6}, float s = {0.5}, int8 z = {0}> {
      d = DequantizeLinear (w, s, z)
      y = Conv (x, d)
    }""")
    assert table.total_macs == 16 * 3 * 2
    assert table.weight_bytes == 6 + 4 + 1


def test_dynamic_sizes_come_from_a_run() -> None:
    body = """g (float[N, 3] x) => (float[N, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}>
      { y = MatMul (x, w) }"""
    assert list(cost(body).unknown.values()) == [
        "the shape of output 0 of y is not known",
    ]
    assert cost(body, {"x": np.zeros((5, 3), np.float32)}).total_macs == 5 * 3 * 2


def test_calls_of_functions_are_unknown() -> None:
    model = ir.parse_text("""<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
      g (float[2, 2] x) => (float[2, 2] y) { y = own.square (x) }
      <domain: "own", opset_import: ["" : 21]>
      square (a) => (b) { b = MatMul (a, a) }""")
    table = cost_table(model, ShapeTable(ir.infer_types(model)))
    assert list(table.unknown.values()) == ["it calls a function of the model"]


def test_measured_times_are_kept_for_the_same_models_together(tmp_path: Path) -> None:
    models = [
        ir.parse_text(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = {op} (x) }}")
        for op in ("Relu", "Neg", "Relu")
    ]
    feed = {"x": np.zeros(2, np.float32)}
    with ThreadPoolExecutor(1) as executor:
        env = Environment(Target("test"), executor, cache=tmp_path)
        first = measured_ms(models, feed, env, seconds=0.01)
        assert len(first) == 3
        assert all(ms > 0 for ms in first)
        assert measured_ms(models, feed, env, seconds=0.01) == first
        assert len(list((tmp_path / "latency").iterdir())) == 1
        measured_ms(models[:2], feed, env, seconds=0.01)
        measured_ms(models[::-1][1:], feed, env, seconds=0.01)
        assert len(list((tmp_path / "latency").iterdir())) == 3
