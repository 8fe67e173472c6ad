"""Patterns that other packages register, in the text form of the other onnxslim."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import onnxslim
from onnxslim import errors, ir
from onnxslim.core.pattern import Pattern, PatternMatcher
from onnxslim.core.pattern.registry import DEFAULT_FUSION_PATTERNS, register_fusion_pattern
from onnxslim.runtime.session import open_session

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z)
{ a = Exp(x)  b = Log(a)  y = Abs(b)  c = Exp(y)  z = Log(c) }
"""


@pytest.fixture(autouse=True)
def registry() -> Generator[None, None, None]:
    """Other tests see no pattern of these."""
    yield
    DEFAULT_FUSION_PATTERNS.clear()


class ExpLog(PatternMatcher):
    """Log(Exp(x)) -> Identity(x)"""

    def __init__(self, priority: int) -> None:
        text = """
            input    x     0 1 e
            Exp      e     1 1 x l
            Log      l     1 1 e out
            output   out   1 0 l
        """
        super().__init__(Pattern(text), priority)

    @property
    def name(self) -> str:
        return "FusionExpLog"

    def rewrite(self, opset: int = 11) -> Mapping[str, Mapping[str, Any]]:
        parts: Any = self
        source, output = parts.e.inputs[0], parts.l.outputs[0]
        source.outputs.remove(parts.e)
        output.inputs.clear()
        return {"made": {"op": "Identity", "inputs": [source], "outputs": [output], "attrs": {}}}


def ops(model: Any) -> list[str]:
    return [node.op_type for node in ir.load(model).graph]


def test_a_registered_pattern_is_applied() -> None:
    model = ir.parse_text(TEXT)
    proto = ir.to_proto(model)
    assert ops(onnxslim.slim(proto)) == ["Exp", "Log", "Abs", "Exp", "Log"]
    register_fusion_pattern(ExpLog(1))
    result = onnxslim.slim(proto, model_check=True)
    assert [op for op in ops(result) if op != "Identity"] == ["Abs"]
    assert ops(onnxslim.slim(proto, skip_fusion_patterns=["FusionExpLog"])) == ops(model)
    assert ops(onnxslim.slim(proto, skip_optimizations=["graph_fusion"])) == ops(model)
    x = np.ones((2, 4), np.float32)
    got = open_session(ir.load(result)).run({"x": x})
    np.testing.assert_array_equal(got["z"], x)


def test_a_decorator_registers_for_some_opsets() -> None:
    @register_fusion_pattern(priority=1, max_opset=12)
    class Old(ExpLog):  # pyright: ignore[reportUnusedClass]
        pass

    assert ops(onnxslim.slim(ir.parse_text(TEXT))) == ["Exp", "Log", "Abs", "Exp", "Log"]


def test_a_graph_output_in_between_is_left_alone() -> None:
    register_fusion_pattern(ExpLog(1))
    model = ir.parse_text(TEXT.replace("float[N, 4] z)", "float[N, 4] z, float[N, 4] a)"))
    assert ops(onnxslim.slim(model))[:2] == ["Exp", "Log"]


def test_a_pattern_that_breaks_the_graph_is_not_applied() -> None:
    class Broken(ExpLog):
        def rewrite(self, opset: int = 11) -> Mapping[str, Mapping[str, Any]]:
            made = dict(next(iter(super().rewrite(opset).values())))
            return {"made": {**made, "op": "NoSuchOperator"}}

    register_fusion_pattern(Broken(1))
    with pytest.warns(UserWarning, match="registered patterns were not applied"):
        result = onnxslim.slim(ir.parse_text(TEXT))
    assert ops(result) == ["Exp", "Log", "Abs", "Exp", "Log"]


class _Any(PatternMatcher):
    def rewrite(self, opset: int = 11) -> Mapping[str, Mapping[str, Any]]:
        return {}


@pytest.mark.parametrize(
    ("inputs", "matches"),
    [("2 1 e n", True), ("2 1 n e", False), ("2* 1 n e", True), ("1+ 1 e", True), ("1 1 e", False),
     ("2 1 e ?", True)],
)  # fmt: skip
def test_how_inputs_are_named(inputs: str, matches: bool) -> None:
    graph = ir.to_gs(
        ir.parse_text(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) '
            "{ a = Exp(x) b = Neg(x) y = Add(a, b) }"
        )
    )
    text = f"input x 0 1 e\nExp e 1 1 x s\nNeg n 1 1 x s\nAdd s {inputs} out\noutput out 1 0 s"
    matcher: Any = _Any(Pattern(text))
    (node,) = [n for n in graph.nodes if n.op == "Add"]
    assert matcher.match(node) is matches
    if matches:
        assert (matcher.e.op, matcher.x.name, matcher.output[0].name) == ("Exp", "x", "y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Exp e 1", "'Exp e 1': expected operator, name, number of inputs"),
        ("Exp e one 1 x y", "expected operator, name, number of inputs"),
        ("Exp e 2 1 x y", "2 names; expected 2 inputs and 1 outputs"),
        ("Exp e 1 1 x y", "expected a line 'output NAME 1 0 NODE'"),
    ],
)
def test_patterns_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        _Any(Pattern(text))


def test_graphsurgeon_is_the_installed_one() -> None:
    import onnxslim.third_party.onnx_graphsurgeon as other

    assert other is import_module("onnx_graphsurgeon")


def test_shape_inference_by_its_old_name() -> None:
    proto = ir.to_proto(ir.parse_text(TEXT))
    told = {v.name: v for v in onnxslim.core.shape_infer(proto).graph.value_info}
    assert [d.dim_param or d.dim_value for d in told["b"].type.tensor_type.shape.dim] == ["N", 4]
