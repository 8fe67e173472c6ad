"""Golden cases: a text file with a model, perhaps the pass with options, and what it becomes.

Compared are operators, attributes, names of values, and constants bit by bit.
"""

from __future__ import annotations

import difflib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onnxslim import ir
from onnxslim.pipeline.analysis import AnalysisManager, Aspect
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.registry import build
from onnxslim.targets.base import Target


def run(model: ir.Model, text: str) -> PassResult:
    """Run the only pass of a pipeline text."""
    (pass_,) = build(text)
    with ThreadPoolExecutor(1) as executor:
        env = Environment(Target("test"), executor)
        return pass_.run(model, Context(env, AnalysisManager(model, env), model))


def description(model: ir.Model) -> str:
    """The model as text, without the names of nodes and tensors and the order of initializers."""
    lines: list[str] = [f"imports {sorted(model.opset_imports.items())}"]
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


def _compare(found: str, expected: str) -> None:
    if found != expected:
        lines = difflib.unified_diff(expected.split("\n"), found.split("\n"), "expected", "found")
        pytest.fail("\n".join(lines), pytrace=False)


def check(path: Path, name: str) -> None:
    """The pass makes of the first model of a file the second, and nothing more of that."""
    given, _, expected = path.read_text().partition("\n----\n")
    model = ir.parse_text(given)
    before = description(model)
    option = re.search(rf"^# ({name}\{{.*\}})$", given, re.MULTILINE)
    text = name if option is None else option[1]
    result = run(model, text)
    ir.verify(model)
    _compare(description(model), description(ir.parse_text(expected)))
    assert (result.changed is Aspect.NONE) == (description(model) == before)
    again = run(model, text)
    assert again.changed is Aspect.NONE
    _compare(description(model), description(ir.parse_text(expected)))
