"""The pass around the rules: options, what it reports, the fixed point, bugs of rules."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.errors import OptionError, PassError
from onnxslim.ir import Editor, Node
from onnxslim.passes.simplify import rounds, simplify
from onnxslim.passes.simplify.dedup import Sharing
from onnxslim.passes.simplify.rules import RULES, list_rules
from onnxslim.passes.simplify.simplify import Simplify
from onnxslim.passes.simplify.steps import STEPS
from onnxslim.pipeline.analysis import AnalysisManager, Aspect
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.pipeline.instruments import Verify
from onnxslim.pipeline.manager import run_passes
from onnxslim.pipeline.reproducer import Reproducer
from onnxslim.registry import build
from onnxslim.rewrite import Rewrite, Rule
from onnxslim.rewrite.rule import Match
from onnxslim.targets import get_target
from onnxslim.targets.base import Target

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'

TWICE = f"""{HEAD} g (float[2] x) => (float[2] y) {{
  [one] a = Sigmoid (x)
  [two] b = Sigmoid (x)
  [three] y = Div (a, b)
}}"""


def run(model: ir.Model, *passes: Simplify, folder: Path | None = None) -> PassResult:
    """The result of the last pass, run as a pipeline runs it."""
    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor)
        ctx = Context(env, AnalysisManager(model, env), ir.snapshot(model))
        chosen = passes or (Simplify(),)
        return run_passes(model, chosen, ctx, [Verify(), Reproducer(folder)])[-1].result


def operators(model: ir.Model) -> list[str]:
    return [ir.op(node) for node in ir.nodes(model)]


# Options


def test_an_unknown_rule_is_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="no rule 'equal-node'; did you mean 'equal-nodes'"):
        build("simplify{skip=equal-node}")


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(OptionError, match="max_bytes must be 0 or more, got -1"):
        build("simplify{max_bytes=-1}")


def test_max_bytes_limits_what_is_folded() -> None:
    text = f"""{HEAD} g (float[256] x) => (float[256] y)
      <float[1] w = {{1}}, int64[1] n = {{256}}> {{ t = Tile (w, n) y = Sub (x, t) }}"""
    small, large = ir.parse_text(text), ir.parse_text(text)
    result = run(small, Simplify(max_bytes=1023))
    run(large, Simplify(max_bytes=1024))
    assert operators(small) == ["Tile", "Sub"]
    said = [d.reason for d in result.declined if d.node == "t"]
    assert said == [
        "fold-constants: its result would take 1024 bytes, more than the 1023 allowed "
        "(see max_bytes)"
    ]
    assert operators(large) == ["Sub"]


def test_every_rule_can_be_listed_and_skipped() -> None:
    listed = list_rules()
    names = [rule.name for rule in listed]
    assert len(set(names)) == len(names) == len(STEPS) + len(RULES)
    assert all("->" in rule.summary for rule in listed)
    assert [rule.exact for rule in listed if rule.name in ("equal-nodes", "batchnorm")] == [
        True,
        False,
    ]
    model = ir.parse_text(TWICE)
    assert run(model, Simplify(skip=tuple(names))).changed is Aspect.NONE


# What it reports


def test_each_rule_that_was_applied_is_counted() -> None:
    model = ir.parse_text(TWICE)
    result = run(model)
    assert dict(result.stats) == {"equal-nodes": 1}
    assert result.changed == Aspect.STRUCTURE | Aspect.SHAPES | Aspect.WEIGHTS | Aspect.NUMERICS
    again = run(model)
    assert again.changed is Aspect.NONE
    assert dict(again.stats) == {}


def _complaint(node: Node, facts: Facts) -> str:
    return "it is not Monday"


def test_near_misses_are_told_a_few_times_per_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    _only(monkeypatch, Rule("lazy", frozenset({"Sigmoid"}), _complaint))
    body = "\n".join(f"[n{i}] a{i + 1} = Sigmoid (a{i})" for i in range(12))
    model = ir.parse_text(f"{HEAD} g (float[2] a0) => (float[2] a12) {{ {body} }}")
    declined = run(model).declined
    assert [d.node for d in declined] == [*(f"n{i}" for i in range(10)), "2 other nodes"]
    assert {d.reason for d in declined[:10]} == {"lazy: it is not Monday"}


# Bugs of rules


def _only(monkeypatch: pytest.MonkeyPatch, rule: Rule) -> None:
    def only(target: Target) -> tuple[Rule, ...]:
        return (rule,)

    monkeypatch.setattr(simplify, "rules_for", only)


def _lie(node: Node, facts: Facts) -> Rewrite:
    def rewrite(editor: Editor) -> Sequence[Node]:
        new = editor.node("Cast", [node.inputs[0]], outputs=["n"], attributes={"to": 7})
        editor.replace_node(node, [new], new.outputs)
        return [new]

    return rewrite


def _break(node: Node, facts: Facts) -> Rewrite:
    def rewrite(editor: Editor) -> Sequence[Node]:
        editor.replace_node(node, (), [node.inputs[0]])
        raise IndexError("no such thing")

    return rewrite


@pytest.mark.parametrize(
    ("op", "match", "said"),
    [
        ("Div", _lie, "rule 'made-up' at node 'three': it gave graph output 'y' another type"),
        ("Sigmoid", _break, "rule 'made-up' at node 'one' broke: IndexError: no such thing"),
    ],
)
def test_a_rule_with_a_bug_is_named_and_leaves_no_half_edited_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, op: str, match: Match, said: str
) -> None:
    _only(monkeypatch, Rule("made-up", frozenset({op}), match))
    model = ir.parse_text(TWICE)
    with pytest.raises(PassError, match=said) as caught:
        run(model, folder=tmp_path)
    assert ir.to_text(model) == ir.to_text(ir.parse_text(TWICE))
    (folder,) = tmp_path.iterdir()
    assert f"reproducer: {folder}" in str(caught.value)
    assert (folder / "pipeline.txt").read_text() == "simplify\n"
    assert operators(ir.load(folder / "model.onnx")) == ["Sigmoid", "Sigmoid", "Div"]


def test_rules_that_undo_each_other_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def swap(node: Node, facts: Facts) -> Rewrite:
        def rewrite(editor: Editor) -> Sequence[Node]:
            name = "Sin" if ir.op(node) == "Cos" else "Cos"
            new = editor.node(name, node.inputs, outputs=["n"])
            editor.replace_node(node, [new], new.outputs)
            return [new]

        return rewrite

    _only(monkeypatch, Rule("to-and-fro", frozenset({"Sin", "Cos"}), swap))
    result = run(ir.parse_text(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Sin (x) }}"))
    assert result.notes == ("Stopped before all was simplified: run it again.",)
    assert int(result.stats["to-and-fro"]) == 10 * rounds.ROUNDS  # ten per node and round


# Steps


def test_large_weights_of_a_file_are_compared_by_place_only(tmp_path: Path) -> None:
    """The file is shorter than it should be: reading the weights would fail."""
    rows = "\n".join(f"y{i} = Sub (x, x)" for i in range(3))
    model = ir.parse_text(
        f"""{HEAD} g (float[40000] x)
      => (float[40000] y0, float[40000] y1, float[40000] y2) {{ {rows} }}""".replace("w", "x")
    )
    editor = Editor(model)
    (tmp_path / "w.bin").write_bytes(b"")
    for node, offset in zip(list(model.graph), (0, 0, 160000), strict=True):
        tensor = ir.ExternalTensor(
            "w.bin",
            offset,
            160000,
            ir.DataType.FLOAT,
            shape=ir.Shape([40000]),
            name="w",
            base_dir=tmp_path,
        )
        value = editor.initializer(model.graph, "w", tensor)
        node.replace_input_with(1, value)
    assert Sharing().share(editor, model) == 1
    one, two, three = (node.inputs[1] for node in model.graph)
    assert one is two
    assert one is not three


def test_long_weights_that_differ_in_the_middle_stay_apart() -> None:
    model = ir.parse_text(f"""{HEAD} g (float[N] x) => (float[N] y, float[N] z, float[N] u) {{
      y = Sub (x, x) z = Sub (x, x) u = Sub (x, x) }}""")
    editor = Editor(model)
    base: ir.Array = np.arange(10000, dtype=np.float32)
    other = np.where(base == 5000, np.float32(-1), base)
    for node, content in zip(list(model.graph), (base, other, base + 0), strict=True):
        node.replace_input_with(1, editor.initializer(model.graph, "w", content))
    assert Sharing().share(editor, model) == 1
    one, two, three = (node.inputs[1] for node in model.graph)
    assert one is three
    assert one is not two


def test_no_runtime_is_needed_for_sizes_and_exact_arithmetic() -> None:
    text = f"""{HEAD} g (float[N, 12] x) => (float[N, 3, 4] y) <float[1] w = {{2}}> {{
      s = Shape (x) k = Constant <value_ints = [0]> () n = Gather (s, k)
      r = Constant <value_ints = [3, 4]> () t = Concat <axis = 0> (n, r)
      a = Max (w, w) b = Sqrt (a) v = Sub (x, b) y = Reshape (v, t) }}"""
    code = f"""
import sys
from onnxslim import ir
from tests.unit.test_simplify_pass import operators, run
model = ir.parse_text({text!r})
run(model)
print(operators(model), "onnxruntime" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['Sub', 'Reshape'] False\n"
