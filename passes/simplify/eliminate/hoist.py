"""The same arrangement behind all Gathers of one axis is done once, before them.

x -> views -> Gather 0, 1, 2, each -> the same views  ->  x -> views -> Gather 0, 1, 2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.errors import EditError
from onnxslim.ir import Editor, Node, Value
from onnxslim.passes.simplify.eliminate.common import given, has_references, is_private, readers
from onnxslim.passes.simplify.eliminate.layout import Layout, unchanged, with_axis
from onnxslim.passes.simplify.eliminate.sizes import NONE
from onnxslim.passes.simplify.eliminate.steps import Step, build, steps_of
from onnxslim.passes.simplify.eliminate.views import Chain, chains, layout_of
from onnxslim.rewrite import Rewrite, Rule

_RESHAPE_WITH_INPUT = 5


@dataclass(frozen=True)
class _Branch:
    """A Gather of one index, and the views behind it."""

    gather: Node
    layout: Layout  # from the Gather's output on
    nodes: tuple[Node, ...]

    @property
    def end(self) -> Node:
        """The node whose output is read by something else."""
        return self.nodes[-1] if self.nodes else self.gather


def _branch(gather: Node, facts: Facts) -> _Branch | None:
    shape = facts.shape(gather.outputs[0])
    if shape is None or 0 in shape:
        return None
    layout, nodes, node = unchanged(shape), list[Node](), gather
    while len(users := readers(node.outputs[0])) == 1 and is_private(node.outputs[0], users[0]):
        after = layout_of(users[0], facts) if users[0].inputs[0] is node.outputs[0] else None
        joined = None if after is None else layout.then(after)
        if joined is None:
            break
        layout, node = joined, users[0]
        nodes.append(node)
    return _Branch(gather, layout, tuple(nodes))


def index_axis(node: Node, facts: Facts) -> int | None:
    """The axis of a Gather of a single constant index, counted from the front."""
    index, rank = facts.array(given(node, 1)), facts.rank(given(node, 0))
    if ir.op(node) != "Gather" or index is None or index.ndim or rank is None:
        return None
    axis = int(ir.attribute(node, "axis", 0))
    return None if has_references(node) else axis % rank if -rank <= axis < rank else None


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    source, axis, shape = given(node, 0), index_axis(node, facts), facts.shape(given(node, 0))
    if source is None or axis is None or shape is None or source.is_graph_output():
        return None
    producer = source.producer()
    if facts.opset(node) < _RESHAPE_WITH_INPUT or producer is None:
        return None
    if producer.graph is not node.graph:
        return "what it reads is computed in another graph"
    gathers = readers(source)
    if len(gathers) < 2 or gathers[0] is not node:
        return None
    if any(g.graph is not node.graph or index_axis(g, facts) != axis for g in gathers):
        return None
    if any(g.inputs[0] is not source or g.inputs[1] is source for g in gathers):
        return None
    branches = [branch for g in gathers if (branch := _branch(g, facts)) is not None]
    if len(branches) < len(gathers) or not any(branch.nodes for branch in branches):
        return None
    plans = [
        plan
        for trunk in trunks(source, facts)
        for common in dict.fromkeys(branch.layout for branch in branches)
        if (plan := _plan(trunk, axis, common, branches)) is not None
    ]
    if not plans:
        return "the views behind its Gathers are not alike enough"
    best = min(plans, key=lambda plan: -plan.gain)
    return lambda editor: _replace(editor, best, branches)


def trunks(source: Value, facts: Facts) -> list[Chain]:
    """The views before the Gathers that nothing else reads, and none at all."""
    shape, producer = facts.shape(source), source.producer()
    found = [] if shape is None or 0 in shape else [Chain(source, unchanged(shape), (), 0, NONE)]
    if producer is not None:
        found += [chain for chain in chains(producer, facts) if chain.own == len(chain.nodes)]
    return found


@dataclass(frozen=True)
class _Plan:
    trunk: Chain
    before: Sequence[Step]
    behind: Sequence[Sequence[Step]]  # of each branch
    gain: int  # nodes


def _plan(trunk: Chain, axis: int, common: Layout, branches: Sequence[_Branch]) -> _Plan | None:
    lifted = with_axis(common, axis, trunk.layout.after[axis])
    whole = None if lifted is None else trunk.layout.then(lifted)
    before = None if whole is None else steps_of(whole, trunk.nonzero)
    rests = [common.inverse().then(branch.layout) for branch in branches]
    behind = [None if rest is None else steps_of(rest) for rest in rests]
    known = [steps for steps in behind if steps is not None]
    if before is None or len(known) < len(branches):
        return None
    old = len(trunk.nodes) + sum(len(branch.nodes) for branch in branches)
    gain = old - len(before) - sum(map(len, known))
    return _Plan(trunk, before, known, gain) if gain > 0 else None


def _replace(editor: Editor, plan: _Plan, branches: Sequence[_Branch]) -> Sequence[Node]:
    source = given(branches[0].gather, 0)
    producer = None if source is None else source.producer()
    if source is None or producer is None:
        raise EditError("nothing computes what the Gathers read")
    first = branches[0].gather
    trunk = build(editor, plan.trunk.x, plan.before, first, f"{source.name}_arranged")
    if trunk:
        editor.insert_after(producer, trunk)
    made = list(trunk)
    for branch, steps in zip(branches, plan.behind, strict=True):
        x = trunk[-1].outputs[0] if trunk else plan.trunk.x
        made.extend(_rebuilt(editor, branch, x, steps))
    return made


def _rebuilt(editor: Editor, branch: _Branch, x: Value, steps: Sequence[Step]) -> list[Node]:
    """The Gather and what is left behind it, in the place of the branch."""
    old, end = branch.gather, branch.end
    hint = str(end.outputs[0].name)
    gather = editor.node(
        "Gather", [x, old.inputs[1]], outputs=[hint], attributes={"axis": 0}, like=old
    )
    nodes = [gather, *build(editor, gather.outputs[0], steps, end, hint)]
    editor.replace_node(end, nodes, [nodes[-1].outputs[0]])
    return nodes


RULES: tuple[Rule, ...] = (
    Rule(
        "views-before-gathers",
        frozenset({"Gather"}),
        _match,
        "x -> Gathers of single indices -> the same views  ->  views -> Gathers",
    ),
)
