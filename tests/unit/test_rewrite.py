"""The driver: to the fixed point, with a bound that it reports, and a trace of near misses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.errors import EditError, PassError
from onnxslim.ir import Editor, Node
from onnxslim.rewrite import NearMiss, Rewrite, Rule, apply

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[4] x) => (float[4] y) {
  [one] a = Neg(x)
  [two] b = Neg(a)
  [three] c = Neg(b)
  [four] y = Neg(c)
}
"""


def _match_pair(node: Node, facts: Facts) -> Rewrite | str:
    """Neg(Neg(x)) -> x."""
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    if before is None or ir.op(before) != "Neg":
        return "no Neg before it"
    if node.outputs[0].is_graph_output():
        return "it makes a graph output"

    def rewrite(editor: Editor) -> Sequence[Node]:
        readers = [use.node for use in node.outputs[0].uses()]
        editor.replace_node(node, [], [before.inputs[0]])
        return readers

    return rewrite


PAIR = Rule("pair", frozenset({"Neg"}), _match_pair)


def test_rules_are_applied_until_none_matches() -> None:
    model = ir.parse_text(TEXT)
    editor = Editor(model)
    outcome = apply(editor, [PAIR])
    editor.remove_dead()
    ir.verify(model)
    assert outcome.applied == {"pair": 1}
    assert not outcome.stopped
    assert [node.name for node in model.graph] == ["three", "four"]


def test_near_misses_say_which_rule_which_node_and_why() -> None:
    outcome = apply(Editor(ir.parse_text(TEXT)), [PAIR])
    assert outcome.near_misses == (
        NearMiss("pair", "three", "no Neg before it"),
        NearMiss("pair", "four", "it makes a graph output"),
    )  # one and two are gone


def test_a_rule_that_throws_is_named_with_the_node() -> None:
    def throw(node: Node, facts: Facts) -> Rewrite | None:
        if node.name == "three":
            raise KeyError(node.name)
        return None

    with pytest.raises(PassError, match="rule 'bad' at node 'three' broke: KeyError: 'three'"):
        apply(Editor(ir.parse_text(TEXT)), [Rule("bad", frozenset({"Neg"}), throw)])


def test_a_rewrite_that_throws_is_named_with_the_node() -> None:
    def throw(editor: Editor) -> Sequence[Node]:
        raise ZeroDivisionError("oh")

    with pytest.raises(PassError, match="rule 'bad' at node 'one' broke: ZeroDivisionError: oh"):
        apply(Editor(ir.parse_text(TEXT)), [Rule("bad", frozenset({"Neg"}), lambda n, f: throw)])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (("Cast", {"to": 7}), "another type: INT64 instead of FLOAT"),
        (("Unsqueeze", dict[str, int]()), r"another shape: \[1, 4\] instead of \[4\]"),
    ],
)
def test_a_rule_that_changes_a_graph_output_is_refused(
    made: tuple[str, dict[str, int]], said: str
) -> None:
    def match(node: Node, facts: Facts) -> Rewrite | None:
        def rewrite(editor: Editor) -> Sequence[Node]:
            axis = editor.initializer(editor.scope_of(node), "axis", np.array([0]))
            inputs = [node.inputs[0], axis] if made[0] == "Unsqueeze" else [node.inputs[0]]
            new = editor.node(made[0], inputs, outputs=["n"], attributes=made[1])
            editor.replace_node(node, [new], new.outputs)
            return [new]

        return rewrite if node.outputs[0].is_graph_output() else None

    with pytest.raises(PassError, match=f"rule 'lies' at node 'four': .* 'y' {said}"):
        apply(Editor(ir.parse_text(TEXT)), [Rule("lies", frozenset({"Neg"}), match)])


def test_what_lost_a_reader_is_looked_at_again() -> None:
    """Abs is read twice until the dead Neg is gone, which only a later rewrite makes dead."""
    model = ir.parse_text("""
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[4] x) => (float[4] y) {
      a = Abs(x)
      n = Neg(a)
      s = Sign(a)
      y = Ceil(n)
    }
    """)

    def alone(node: Node, facts: Facts) -> Rewrite | str:
        if len(node.outputs[0].uses()) != 1:
            return "it is read twice"

        def rewrite(editor: Editor) -> Sequence[Node]:
            readers = [use.node for use in node.outputs[0].uses()]
            editor.bypass(node, node.inputs[0] or node.outputs[0])
            return readers

        return rewrite

    def dead(node: Node, facts: Facts) -> Rewrite | None:
        return None if node.outputs[0].uses() else lambda editor: ()

    rules = [Rule("alone", frozenset({"Abs"}), alone), Rule("dead", frozenset({"Sign"}), dead)]
    outcome = apply(Editor(model), rules)
    assert outcome.applied == {"alone": 1, "dead": 1}
    assert outcome.near_misses == ()
    assert [ir.op(node) for node in model.graph] == ["Neg", "Ceil"]


def test_the_bound_is_kept_and_reported() -> None:
    def again(node: Node, facts: Facts) -> Rewrite | str:
        def rewrite(editor: Editor) -> Sequence[Node]:
            return [node]

        return rewrite

    outcome = apply(Editor(ir.parse_text(TEXT)), [Rule("endless", frozenset({"Neg"}), again)], 7)
    assert outcome.stopped
    assert outcome.count == 7


def test_an_edit_that_is_refused_is_a_near_miss() -> None:
    def refuse(editor: Editor) -> Sequence[Node]:
        raise EditError("not today")

    outcome = apply(
        Editor(ir.parse_text(TEXT)), [Rule("no", frozenset({"Neg"}), lambda n, f: refuse)]
    )
    assert outcome.count == 0
    assert {miss.reason for miss in outcome.near_misses} == {"not today"}


def test_nodes_of_subgraphs_are_seen() -> None:
    model = ir.parse_text("""
    <ir_version: 8, opset_import: ["" : 17]>
    net (bool c, float[4] x) => (float[4] y) {
      y = If (c) <
        then_branch = t () => (float[4] p) { a = Neg(x) b = Neg(a) p = Abs(b) },
        else_branch = e () => (float[4] q) { q = Abs(x) }
      >
    }
    """)
    editor = Editor(model)
    assert apply(editor, [PAIR]).count == 1
    editor.remove_dead()
    ir.verify(model)
    assert sum(ir.op(node) == "Neg" for node in ir.nodes(model)) == 0
