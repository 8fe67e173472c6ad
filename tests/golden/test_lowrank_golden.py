"""Each file of `lowrank/`: what it shows, a model, and the structure that it becomes.

Compared are operators, attributes, names of values and shapes of weights: numbers are tested
elsewhere. Without data, and with ranks from 1 on.
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
from onnxslim.targets import get_target

CASES = sorted((Path(__file__).parent / "lowrank").glob("*.txt"))
ALWAYS = "min_dim=1 multiple=1 measure=false"


def run(model: ir.Model, more: str) -> PassResult:
    (lowrank,) = build(f"lowrank{{{ALWAYS} {more}}}")
    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor)
        return lowrank.run(model, Context(env, AnalysisManager(model, env), ir.snapshot(model)))


def structure(model: ir.Model) -> str:
    """One line per node: outputs, operator, attributes, inputs; weights with their shape."""
    lines: list[str] = []
    for scope in ir.scopes(model):
        for node in scope:
            reads = ", ".join("-" if v is None else _shown(v) for v in node.inputs)
            outputs = ", ".join(str(v.name) for v in node.outputs)
            lines.append(f"{outputs} = {ir.op(node)} ({reads}){_attributes(node)}")
    return "\n".join(lines)


def _shown(value: ir.Value) -> str:
    array = ir.array(value)
    return str(value.name) if array is None else f"{value.name}{list(array.shape)}"


def _attributes(node: ir.Node) -> str:
    plain = {k: ir.attribute(node, k) for k in sorted(node.attributes)}
    shown = [f"{k}={_text(v)}" for k, v in plain.items() if not k.endswith("branch")]
    return "".join(f" {text}" for text in shown)


def _text(value: object) -> str:
    return str(value).replace("(", "[").replace(",)", "]").replace(")", "]")


def test_there_are_cases() -> None:
    assert len(CASES) >= 10


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_case(path: Path) -> None:
    given, _, expected = path.read_text().partition("----\n")
    model = ir.parse_text(given)
    before = structure(model)
    option = re.search(r"^# lowrank\{(.*)\}", given, re.MULTILINE)
    result = run(model, "" if option is None else option[1])
    ir.verify(model)
    assert structure(model) == expected.strip()
    assert (result.changed is Aspect.NONE) == (structure(model) == before)
