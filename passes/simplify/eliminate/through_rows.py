"""Arrangements of elements on both sides of row operators become one on one side.

Reshape, Transpose, Reshape -> MatMul by a weight, Add of a bias -> Reshape, Transpose
    -> MatMul, Add -> Reshape, Transpose, Reshape

Rows are computed one by one, but kernels may take them in other groups: equal to float rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnxslim.analyses.facts import Dim, Facts
from onnxslim.analyses.facts.dims import total
from onnxslim.ir import Editor, Node, Value
from onnxslim.passes.simplify.eliminate.common import is_private
from onnxslim.passes.simplify.eliminate.layout import Layout, reshaped, unchanged, with_last
from onnxslim.passes.simplify.eliminate.rowwise import RowOperator, last_size, operators_above
from onnxslim.passes.simplify.eliminate.sizes import Shape, Sizes
from onnxslim.passes.simplify.eliminate.steps import Step, build, steps_of
from onnxslim.passes.simplify.eliminate.views import VIEWS, Chain, chains, goes_on
from onnxslim.rewrite import Rewrite, Rule

_RESHAPE_WITH_INPUT = 5


@dataclass(frozen=True)
class _Sandwich:
    """A chain of views, row operators, and a chain of views."""

    above: Chain
    operators: tuple[RowOperator, ...]
    below: Chain
    before: Dim  # the length of rows, before and behind the operators
    behind: Dim

    @property
    def cost(self) -> int:
        """The views that go away."""
        return self.above.own + self.below.own

    @property
    def flat(self) -> bool:
        """Whether an operator takes two axes only."""
        return any(operator.flat for operator in self.operators)

    def resized(self, layout: Layout, size: Dim) -> Layout | None:
        """The layout for rows of another length."""
        if not any(operator.needs_rows for operator in self.operators):
            return layout
        return with_last(layout, size)


@dataclass(frozen=True)
class _Plan:
    """What replaces a sandwich: steps, the same operators, steps."""

    first: Sequence[Step]
    second: Sequence[Step]
    size: Dim  # of the rows on the side where most is done

    @property
    def cost(self) -> int:
        return len(self.first) + len(self.second)


def _match(node: Node, facts: Facts) -> Rewrite | str | None:
    if facts.opset(node) < _RESHAPE_WITH_INPUT or goes_on(node, facts):
        return None
    best: tuple[_Plan, _Sandwich] | None = None
    reason: str | None = None
    for sandwich in _sandwiches(node, facts):
        for plan in _plans(sandwich):
            reason = "the operators between cut across what is moved, or nothing is gained"
            gain = sandwich.cost - plan.cost
            if gain > 0 and (best is None or _key(plan, sandwich) < _key(*best)):
                best = plan, sandwich
    if best is None:
        return reason
    plan, chosen = best
    return lambda editor: _replace(editor, node, chosen, plan)


def _key(plan: _Plan, sandwich: _Sandwich) -> tuple[int, int]:
    return plan.cost - sandwich.cost, plan.size if isinstance(plan.size, int) else 0


def _sandwiches(node: Node, facts: Facts) -> Iterator[_Sandwich]:
    """Those whose last view is the node; the views between must be read by nothing else."""
    for below in chains(node, facts):
        if below.own < len(below.nodes):
            return
        operators = operators_above(below.x, below.nodes[0], facts)
        for count in range(1, len(operators) + 1):
            inner = operators[-count:]
            x = inner[0].node.inputs[inner[0].at]
            end = None if x is None else x.producer()
            if x is None or end is None or not is_private(x, inner[0].node):
                continue
            before, behind = last_size(x, facts), last_size(below.x, facts)
            if before is None or behind is None:
                continue
            for above in chains(end, facts):
                if above.own == len(above.nodes):
                    yield _Sandwich(above, tuple(inner), below, before, behind)


def _plans(sandwich: _Sandwich) -> Iterator[_Plan]:
    """All of it below the operators, or all of it above."""
    above, below = sandwich.above, sandwich.below
    nonzero = above.nonzero | below.nonzero
    down = sandwich.resized(above.layout, sandwich.behind)
    if down is not None:
        start = _rows_of(sandwich, above.layout.before, sandwich.before)
        begin = _rows_of(sandwich, down.before, sandwich.behind)
        plan = _plan(start, _joined(_inverse(begin), down, below.layout), nonzero)
        if plan is not None:
            yield _Plan(*plan, sandwich.behind)
    up = sandwich.resized(below.layout, sandwich.before)
    if up is not None:
        end = _rows_of(sandwich, up.after, sandwich.before)
        finish = _rows_of(sandwich, below.layout.after, sandwich.behind)
        plan = _plan(_joined(above.layout, up, end), _inverse(finish), nonzero)
        if plan is not None:
            yield _Plan(*plan, sandwich.before)


def _rows_of(sandwich: _Sandwich, shape: Shape, size: Dim) -> Layout | None:
    """From a shape to the one that the operators take: two axes, or as it is."""
    if not sandwich.flat or len(shape) == 2:
        return unchanged(shape)
    return reshaped(shape, (total(shape[:-1]), size))


def _inverse(layout: Layout | None) -> Layout | None:
    return None if layout is None else layout.inverse()


def _joined(*layouts: Layout | None) -> Layout | None:
    result: Layout | None = None
    for index, layout in enumerate(layouts):
        if layout is None or (index and result is None):
            return None
        result = layout if result is None else result.then(layout)
    return result


def _plan(
    first: Layout | None, second: Layout | None, nonzero: Sizes
) -> tuple[Sequence[Step], Sequence[Step]] | None:
    if first is None or second is None or not first.after or not second.before:
        return None
    steps = steps_of(first, nonzero), steps_of(second, nonzero)
    return None if steps[0] is None or steps[1] is None else (steps[0], steps[1])


def _replace(editor: Editor, node: Node, sandwich: _Sandwich, plan: _Plan) -> Sequence[Node]:
    hint = str(node.outputs[0].name)
    made = build(editor, sandwich.above.x, plan.first, node, f"{hint}_arranged")
    x: Value = made[-1].outputs[0] if made else sandwich.above.x
    for operator in sandwich.operators:
        made.append(operator.copy(editor, x))
        x = made[-1].outputs[0]
    made.extend(build(editor, x, plan.second, node, hint))
    editor.replace_node(node, made, [made[-1].outputs[0]])
    return made


RULES: tuple[Rule, ...] = (
    Rule(
        "views-through-rows",
        frozenset(VIEWS),
        _match,
        "views -> operators on rows -> views  ->  views on one side only",
        exact=False,
    ),
)
