"""Chains of operators that only arrange elements become at most Reshape, Transpose, Reshape.

Reshape, Flatten, Squeeze, Unsqueeze, Transpose, and Gather of the one element of an axis
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Editor, Node, Value
from onnxslim.passes.simplify.eliminate.common import (
    bypass,
    given,
    has_references,
    is_private,
)
from onnxslim.passes.simplify.eliminate.layout import Layout, reshaped, transposed
from onnxslim.passes.simplify.eliminate.sizes import NONE, Sizes
from onnxslim.passes.simplify.eliminate.steps import Step, build, steps_of
from onnxslim.rewrite import Rewrite, Rule

_LONGEST = 12
_RESHAPE_WITH_INPUT = 5  # the opset since which the shape is an input


def _flat(node: Node, facts: Facts) -> Layout | None:
    before, after = facts.shape(given(node, 0)), facts.shape(node.outputs[0])
    return None if before is None or after is None else reshaped(before, after)


def _transpose(node: Node, facts: Facts) -> Layout | None:
    shape = facts.shape(given(node, 0))
    if shape is None:
        return None
    perm = ir.attribute(node, "perm")
    return transposed(shape, list(perm) if perm is not None else list(range(len(shape)))[::-1])


def _gather(node: Node, facts: Facts) -> Layout | None:
    """Of the one element of an axis: a Squeeze, or nothing."""
    shape, indices = facts.shape(given(node, 0)), facts.array(given(node, 1))
    if shape is None or indices is None or indices.size != 1:
        return None
    axis = int(ir.attribute(node, "axis", 0))
    return _flat(node, facts) if -len(shape) <= axis < len(shape) and shape[axis] == 1 else None


VIEWS: dict[str, Callable[[Node, Facts], Layout | None]] = {
    "Reshape": _flat,
    "Flatten": _flat,
    "Squeeze": _flat,
    "Unsqueeze": _flat,
    "Gather": _gather,
    "Transpose": _transpose,
}
"""What each operator does to the arrangement of the elements of its first input."""


def layout_of(node: Node, facts: Facts) -> Layout | None:
    """The arrangement that a node makes of its first input; None for anything else."""
    find = VIEWS.get(ir.op(node))
    return None if find is None or has_references(node) else find(node, facts)


@dataclass(frozen=True)
class Chain:
    """Nodes from x on that together make a layout of it."""

    x: Value
    layout: Layout
    nodes: tuple[Node, ...]  # the first reads x
    own: int  # how many of the nodes, from the last one up, nothing else reads
    nonzero: Sizes  # in every run that works

    def steps(self) -> list[Step] | None:
        """The fewest operators for it."""
        return steps_of(self.layout, self.nonzero)


def chains(node: Node, facts: Facts) -> Iterator[Chain]:
    """The chains that end in a node, the shortest first."""
    layout = layout_of(node, facts)
    nodes, own, nonzero = [node], 1, nonzero_sizes(node, facts)
    while layout is not None and nodes[0].inputs[0] is not None:
        x = nodes[0].inputs[0]
        yield Chain(x, layout, tuple(nodes), own, nonzero)
        before = x.producer()
        if before is None or len(nodes) == _LONGEST:
            return
        first = layout_of(before, facts)
        if first is None:
            return
        if own == len(nodes) and is_private(x, nodes[0]):
            own += 1
        layout = first.then(layout)
        nonzero = nonzero | nonzero_sizes(before, facts)
        nodes.insert(0, before)


def nonzero_sizes(node: Node, facts: Facts) -> Sizes:
    """The unknown sizes beside the -1 of a Reshape, which fails at run time where one is 0."""
    content = facts.content(given(node, 1)) if ir.op(node) == "Reshape" else None
    shape = facts.shape(node.outputs[0])
    if content is None or shape is None or -1 not in content:
        return NONE
    beside = zip(content, shape, strict=True)
    return frozenset(size for given, size in beside if given != -1 and not isinstance(size, int))


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    if goes_on(node, facts):
        return None
    best: tuple[int, Chain, list[Step]] | None = None
    reason: str | None = None
    for chain in chains(node, facts):
        steps = chain.steps()
        if steps is None:
            reason = "no constant shape says it: several sizes are unknown"
            continue
        gain = _gain(chain, steps)
        if gain > 0 and (best is None or gain > best[0]):
            best = gain, chain, steps
    if best is None:
        return reason
    _, chain, steps = best
    if facts.opset(node) < _RESHAPE_WITH_INPUT and any(s.operator == "Reshape" for s in steps):
        return f"opset {facts.opset(node)} has no Reshape with the shape as an input"
    return lambda editor: replace_chain(editor, node, chain.x, steps)


def goes_on(node: Node, facts: Facts) -> bool:
    """Whether the chain does not end here: its end is looked at instead."""
    output = node.outputs[0]
    uses = output.uses()
    if len(uses) != 1 or output.is_graph_output():
        return False
    reader = next(iter(uses))
    if reader.idx != 0 or reader.node.graph is not node.graph:
        return False
    after, own = layout_of(reader.node, facts), layout_of(node, facts)
    return after is not None and own is not None and own.then(after) is not None


def _gain(chain: Chain, steps: Sequence[Step]) -> int:
    """Above 0 where the steps are better: in nodes first, then by starting further up, where more
    of the chain may become unread."""
    fewer = chain.own - len(steps)
    if fewer:
        return 100 * fewer
    if len(steps) != 1 or steps[0].operator != "Reshape" or ir.op(chain.nodes[-1]) == "Transpose":
        return 0
    return len(chain.nodes) - 1


def replace_chain(editor: Editor, node: Node, x: Value, steps: Sequence[Step]) -> Sequence[Node]:
    """Let the steps, taken from x, stand for a node's output."""
    if not steps:
        return bypass(editor, node, x)
    nodes = build(editor, x, steps, node, str(node.outputs[0].name))
    editor.replace_node(node, nodes, [nodes[-1].outputs[0]])
    return nodes


VIEWS_MERGED = Rule(
    "merge-views",
    frozenset(VIEWS),
    _match,
    "Reshape, Flatten, Squeeze, Unsqueeze, Transpose in a row -> at most Reshape, Transpose, "
    "Reshape to constant shapes",
)


def _match_transposes(node: Node, facts: Facts) -> Rewrite | str | None:
    """Where nothing is known of the shape."""
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    if before is None or ir.op(before) != "Transpose" or has_references(node):
        return None
    first, second = ir.attribute(before, "perm"), ir.attribute(node, "perm")
    if first is None or second is None or has_references(before) or len(first) != len(second):
        return None
    x, perm = before.inputs[0], tuple(int(first[axis]) for axis in second)
    if x is None:
        return None
    if list(perm) == sorted(perm):
        return lambda editor: bypass(editor, node, x)
    if not is_private(before.outputs[0], node):
        return f"the output of {ir.label(before)!r} is read elsewhere too"
    return lambda editor: replace_chain(editor, node, x, [Step("Transpose", perm)])


TRANSPOSES_MERGED = Rule(
    "merge-transposes",
    frozenset({"Transpose"}),
    _match_transposes,
    "Transpose(Transpose(x)) -> Transpose(x), or x",
)

RULES: tuple[Rule, ...] = (VIEWS_MERGED, TRANSPOSES_MERGED)
