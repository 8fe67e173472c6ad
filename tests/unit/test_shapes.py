from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.seen import observed_shapes
from onnxslim.analyses.shapes import Shapes, ShapeTable, StaticShapes
from onnxslim.pipeline.analysis import Analysis, AnalysisManager
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Feed, FeedList
from onnxslim.targets.base import Target

HEAD = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1, "own" : 1]>'


def table(
    text: str, feed: Feed | None = None, analysis: Analysis[ShapeTable] | None = None
) -> ShapeTable:
    model = ir.parse_text(f"{HEAD} {text}")
    with ThreadPoolExecutor(1) as executor:
        samples = None if feed is None else FeedList([feed])
        env = Environment(Target("test"), executor, calib=samples)
        return AnalysisManager(model, env).get(analysis or Shapes())


def test_data_propagation_sees_through_shape_arithmetic() -> None:
    found = table("""g (float[N, 3, 4] x) => (float[A, B] y)
      <int64[1] zero = {0}, int64[1] one = {1}, int64[1] rest = {12}> {
      s = Shape (x)
      n = Slice (s, zero, one)
      t = Concat <axis = 0> (n, rest)
      y = Reshape (x, t)
    }""", analysis=StaticShapes())  # fmt: skip
    assert found.shape("y") == ("N", 12)
    assert found.static("y") is None
    assert found.static("t") == (2,)
    assert found.dtype("t") == ir.DataType.INT64
    assert found.seen("y") is None


def test_a_run_completes_and_wins_over_claims() -> None:
    """Inference cannot know how many elements are not zero; the declared 99 is wrong."""
    text = """g (float[N] x) => (float[99] y)
      { i = NonZero (x) t = Transpose (i) y = GatherND (x, t) }"""
    found = table(text, {"x": np.array([0, 1, 2], np.float32)})
    assert found.shape("i") == (1, None) or found.shape("i") == (1, "unk__0")
    assert found.sizes("y") == found.seen("y") == (2,)
    assert found.static("y") != (99,)
    assert found.elements("i") == 2


def test_claims_count_where_nothing_else_is_known() -> None:
    found = table("g (float[2] x) => (float[2, 5] y) { y = own.Mystery (x) }",
                  {"x": np.zeros(2, np.float32)})  # fmt: skip
    assert found.shape("y") == (2, 5)
    assert "own" in found.reason
    assert found.seen("y") is None


def test_what_inference_rejects_is_unknown() -> None:
    text = "g (float[2, 3] x) => (float y) { y = Reshape (x, x) z = Relu (y) }"
    found = table(text, analysis=StaticShapes())
    assert found.shape("z") is None
    assert found.shape("no such value") is None


def test_values_of_subgraphs_are_inferred_and_not_seen() -> None:
    found = table("""g (bool c, float[2, 3] x) => (float[2, 3] y) {
      y = If (c) <then_branch = t () => (float[A, B] p) { q = Transpose (x) p = Transpose (q) },
                  else_branch = e () => (float[A, B] r) { r = Relu (x) }>
    }""", {"c": np.array(True), "x": np.zeros((2, 3), np.float32)})  # fmt: skip
    assert found.shape("q") == (3, 2)
    assert found.seen("q") is None
    assert found.seen("y") == (2, 3)


def test_sequences_and_optionals_are_left_out_of_a_run() -> None:
    model = ir.parse_text(f"""{HEAD} g (float[2, 3] x) => (float[2, 3] y) {{
      s = SequenceConstruct (x, x)
      y = ConcatFromSequence <axis = 0> (s)
    }}""")
    seen = observed_shapes(model, {"x": np.zeros((2, 3), np.float32)})
    assert seen == {"x": (2, 3), "y": (4, 3)}


def test_memory_of_a_run_is_not_asked_for() -> None:
    """The values themselves are no outputs: 4 GB of them would not fit into one protobuf either."""
    model = ir.parse_text(f"""{HEAD} g (float[N] x) => (float[N] y) {{
      a = Relu (x) b = Neg (a) y = Relu (b)
    }}""")
    outputs = [v.name for v in model.graph.outputs]
    assert observed_shapes(model, {"x": np.zeros(7, np.float32)})["b"] == (7,)
    assert [v.name for v in model.graph.outputs] == outputs
    assert len(model.graph) == 3


@pytest.mark.parametrize("big", [False, True])
def test_weights_are_left_out_of_inference(big: bool) -> None:
    size = 600 if big else 6
    model = ir.parse_text(f"{HEAD} g (float[2, {size}] x, float[{size}, 4] w) => (float y)"
                          " { y = MatMul (x, w) }")  # fmt: skip
    weight = ir.Editor(model).initializer(model.graph, "v", np.zeros((size, 4), np.float32))
    model.graph[0].replace_input_with(1, weight)
    assert ir.infer_types(model)["y"].shape == (2, 4)
    assert weight.const_value is not None
    assert [v.name for v in model.graph.inputs] == ["x", "w"]


def test_contents_of_long_vectors_are_not_propagated() -> None:
    """ONNX would keep 2^40 elements of 140 bytes: float arithmetic is known by shape only."""
    model = ir.parse_text(f"""{HEAD} g (float[1] x) => (float[N] y) <int64[1] n = {{1048576}}> {{
      m = Mul (n, n)
      a = ConstantOfShape (m)
      y = Add (x, a)
    }}""")
    assert ir.infer_types(model)["y"].shape == (2**40,)


def test_a_sequence_that_is_fed_has_no_shape_and_what_follows_has() -> None:
    model = ir.parse_text(
        f"{HEAD} g (seq(float[2, 4]) s) => (float[N, 4] y)"
        " { y = ConcatFromSequence <axis = 0> (s) }"
    )
    fed: Feed = {"s": [np.zeros((2, 4), np.float32)] * 3}  # type: ignore[dict-item]
    assert observed_shapes(model, fed) == {"y": (6, 4)}
