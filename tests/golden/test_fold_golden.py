"""Each file of `fold/`: what it shows, perhaps the pass with options, a model, and what it becomes.

Compared are operators, attributes, names of values, and constants bit by bit.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onnxslim import ir
from onnxslim.pipeline.analysis import AnalysisManager, Aspect
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.registry import build
from onnxslim.targets.base import Target

CASES = sorted((Path(__file__).parent / "fold").glob("*.txt"))


def run(model: ir.Model, text: str) -> PassResult:
    (fold,) = build(text)
    with ThreadPoolExecutor(1) as executor:
        env = Environment(Target("test"), executor)
        return fold.run(model, Context(env, AnalysisManager(model, env), model))


def facts(model: ir.Model) -> str:
    """The model as text, without the names of nodes and tensors and the order of initializers."""
    lines: list[str] = []
    for scope in ir.scopes(model):
        lines.append(f"inputs {[v.name for v in scope.inputs]}")
        lines.append(f"outputs {[v.name for v in scope.outputs]}")
        if isinstance(scope, ir.Graph):
            lines.extend(sorted(f"{n} = {_tensor(v)}" for n, v in scope.initializers.items()))
        for node in scope:
            reads = [None if v is None else v.name for v in node.inputs]
            constant = _tensor(node.outputs[0]) if ir.op(node) == "Constant" else ""
            lines.append(f"{[v.name for v in node.outputs]} = {ir.op(node)} {reads} {constant}")
    return "\n".join(lines)


def _tensor(value: ir.Value) -> str:
    tensor = value.const_value or ir.constant(value)
    assert tensor is not None
    return f"{tensor.dtype.name} {tensor.numpy().shape} {tensor.numpy().tolist()}"


def test_there_are_cases() -> None:
    assert len(CASES) >= 15


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_case(path: Path) -> None:
    given, _, expected = path.read_text().partition("\n----\n")
    model = ir.parse_text(given)
    before = facts(model)
    option = re.search(r"^# (fold\{.*\})$", given, re.MULTILINE)
    text = "fold" if option is None else option[1]
    result = run(model, text)
    ir.verify(model)
    assert facts(model) == facts(ir.parse_text(expected))
    assert (result.changed is Aspect.NONE) == (facts(model) == before)
    again = run(model, text)
    assert again.changed is Aspect.NONE
    assert facts(model) == facts(ir.parse_text(expected))
