from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.passes.fold.fold import Fold
from onnxslim.pipeline.analysis import AnalysisManager, Aspect
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.runtime.session import open_session
from onnxslim.targets.base import Target

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


def fold(model: ir.Model, max_bytes: int = 1 << 20) -> PassResult:
    with ThreadPoolExecutor(1) as executor:
        env = Environment(Target("test"), executor)
        result = Fold(max_bytes=max_bytes).run(
            model, Context(env, AnalysisManager(model, env), model)
        )
    ir.verify(model)
    return result


def operators(model: ir.Model) -> list[str]:
    return [ir.op(node) for node in ir.nodes(model)]


def test_max_bytes_is_checked() -> None:
    with pytest.raises(ValueError, match="max_bytes must be 0 or more, got -1"):
        Fold(max_bytes=-1)


def test_results_count_what_was_done() -> None:
    model = ir.parse_text(f"""{HEAD} g (float[2] x) => (float[2] y)
      <bool c = {{1}}, float[2] w = {{1, 2}}, float[2] unused = {{1, 2}}> {{
      k = Constant <value = float[2] {{5, 6}}> ()
      a = Neg (w)
      b = Identity (x)
      d = Add (b, k)
      e = If (c) <then_branch = t () => (float[2] p) {{ p = Mul (d, a) }},
                  else_branch = f () => (float[2] q) {{ q = Neg (d) }}>
      y = Relu (e)
    }}""")
    result = fold(model)
    assert operators(model) == ["Add", "Mul", "Relu"]
    assert result.changed == Aspect.STRUCTURE | Aspect.SHAPES | Aspect.WEIGHTS
    stats = dict(result.stats)
    assert int(stats.pop("dead")) > 0
    assert stats == {"folded": 1, "branches": 1, "copies": 1, "initializers": 1}


def test_what_onnx_runtime_lacks_the_reference_computes() -> None:
    model = ir.parse_text(f"""{HEAD} g (float[1] x) => (float[1] y)
      <bfloat16[2] w = {{16256, 16384}}> {{
      a = Sinh (w)
      b = Cast <to = 1> (a)
      c = ReduceMax <keepdims = 0> (b)
      y = Mul (x, c)
    }}""")
    with pytest.raises(RuntimeUnavailable, match="Sinh"):
        open_session(model)
    fold(model)
    assert operators(model) == ["Mul"]
    (weight,) = model.graph.initializers.values()
    assert ir.array(weight) == pytest.approx(np.sinh(2), rel=0.01)


def test_what_nobody_can_compute_stays_with_its_reason() -> None:
    model = ir.parse_text(f"""{HEAD} g (float[3] x) => (float[3] y)
      <float[2] w = {{1, 2}}, float[3] v = {{1, 2, 3}}> {{
      a = Add (w, v)
      b = Neg (v)
      c = Mul (x, b)
      y = Add (c, a)
    }}""")
    with ThreadPoolExecutor(1) as executor:
        env = Environment(Target("test"), executor)
        result = Fold().run(model, Context(env, AnalysisManager(model, env), model))
    assert operators(model) == ["Add", "Mul", "Add"]
    (declined,) = result.declined
    assert declined.node == "a"
    assert "cannot run the model" in declined.reason


def test_sequences_inside_are_computed_and_as_results_stay() -> None:
    model = ir.parse_text(f"""{HEAD} g (float[4] x, int64 i) => (float[4] y, float[2] z)
      <float[2] w = {{1, 2}}> {{
      s = SequenceConstruct (w, w)
      a = ConcatFromSequence <axis = 0> (s)
      y = Mul (x, a)
      n = Neg (w)
      t = SequenceConstruct (n, w)
      z = SequenceAt (t, i)
    }}""")
    result = fold(model)
    assert operators(model) == ["Mul", "SequenceConstruct", "SequenceAt"]
    assert [d.reason for d in result.declined] == ["its result is not a tensor"]


def test_sizes_that_nobody_knows_beforehand_do_not_fill_the_memory() -> None:
    """4 TB, of a size that is computed."""
    model = ir.parse_text(f"""{HEAD} g (float[1] x) => (float[N] y)
      <int64[1] n = {{1048576}}> {{
      m = Mul (n, n)
      a = ConstantOfShape (m)
      y = Add (x, a)
    }}""")
    result = fold(model)
    assert operators(model) == ["ConstantOfShape", "Add"]
    assert [d.node for d in result.declined] == ["a"]
    assert "more than the 1048576 allowed (see max_bytes)" in result.declined[0].reason


@pytest.mark.parametrize(("max_bytes", "left"), [(15, ["Tile", "Mul"]), (16, ["Mul"])])
def test_the_limit_is_in_bytes(max_bytes: int, left: list[str]) -> None:
    model = ir.parse_text(f"""{HEAD} g (float[4] x) => (float[4] y)
      <float[1] w = {{1}}, int64[1] n = {{4}}> {{ t = Tile (w, n) y = Mul (x, t) }}""")
    fold(model, max_bytes)
    assert operators(model) == left


def test_outputs_that_are_computed_from_parts_of_other_outputs() -> None:
    """The Split cannot go before what reads its second result."""
    model = ir.parse_text(f"""{HEAD} g (float[1] x) => (float[1] a, float[1] c)
      <float[2] w = {{1, 4}}> {{ a, b = Split <axis = 0, num_outputs = 2> (w) c = Sqrt (b) }}""")
    fold(model)
    assert operators(model) == ["Constant", "Constant"]
    outputs = open_session(model).run({"x": np.zeros(1, np.float32)})
    assert {name: float(value[0]) for name, value in outputs.items()} == {"a": 1.0, "c": 2.0}


STANDARDIZED = "m = ReduceMean (w) d = Sub (w, m) q = Mul (d, d) v = ReduceMean (q) s = Div (d, v)"
TWO_WEIGHTS = ["Sub", "Mul", "ReduceMean", "Div", "MatMul", "MatMul"]


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        (f"{STANDARDIZED} y = MatMul (x, s)", ["MatMul"]),
        (f"{STANDARDIZED} t = MatMul (x, s) y = MatMul (t, w)", TWO_WEIGHTS),
        (f"{STANDARDIZED} t = MatMul (x, s) y = MatMul (t, d)", TWO_WEIGHTS),
    ],
)
def test_results_may_replace_large_constants_but_not_join_them(nodes: str, left: list[str]) -> None:
    """Weight standardization: w is read several times, and is gone when all is computed."""
    w = ", ".join(["0.5", "-1.5"] * 32)
    model = ir.parse_text(
        f"{HEAD} g (float[4, 8] x) => (float[4, 8] y) <float[8, 8] w = {{{w}}}> {{ {nodes} }}"
    )
    fold(model, 255)
    assert operators(model) == left


def test_texts_and_small_integers() -> None:
    model = ir.parse_text(f"""{HEAD} g (int64 i, float[2] x) => (string[1] y, float[2] z)
      <float[2] w = {{1, -2}}, float one = {{1}}> {{
      a = Constant <value = string[2] {{"one", "two"}}> ()
      b = Identity (a)
      axis = Constant <value_ints = [0]> ()
      c = Unsqueeze (i, axis)
      y = Gather (b, c)
      q = Cast <to = 22> (w)
      d = DequantizeLinear (q, one)
      z = Mul (x, d)
    }}""")
    fold(model)
    assert operators(model) == ["Unsqueeze", "Gather", "DequantizeLinear", "Mul"]
    assert model.graph.initializers["q"].dtype == ir.DataType.INT4
    feed = {"i": np.array(1), "x": np.array([3, 5], np.float32)}
    found = open_session(model).run(feed)
    assert found["y"].tolist() == ["two"]
    assert found["z"].tolist() == [3, -10]


def test_a_long_chain_is_folded_at_once() -> None:
    """Linear, without recursion: 3000 nodes that depend on each other."""
    body = "\n".join(f"a{i + 1} = Neg (a{i})" for i in range(3000))
    model = ir.parse_text(f"""{HEAD} g (float[1] x) => (float[1] y) <float[1] a0 = {{1}}> {{
      {body}
      y = Mul (x, a3000)
    }}""")
    assert fold(model).stats["folded"] == 1
    assert operators(model) == ["Mul"]
    assert list(model.graph.initializers) == ["a3000"]


def test_a_model_without_standard_operators() -> None:
    model = ir.parse_text("""<ir_version: 10, opset_import: ["ai.onnx.ml" : 3]>
      g () => (float[1, 2] y) <float[1, 2] w = {1, 5}> {
      y = ai.onnx.ml.Binarizer <threshold = 2.0> (w)
    }""")
    result = fold(model)
    assert result.changed is Aspect.NONE
    assert "does not import Constant" in result.declined[0].reason
