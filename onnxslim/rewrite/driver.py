"""Applies rules greedily until none matches, or until a bound that it then reports."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.errors import EditError
from onnxslim.ir import Editor, Node
from onnxslim.rewrite.rule import NearMiss, Rule


@dataclass(frozen=True)
class Outcome:
    """How often each rule was applied, what it left alone and why, and whether it was stopped."""

    applied: Mapping[str, int]
    near_misses: tuple[NearMiss, ...] = ()
    stopped: bool = False  # more might have been possible: the bound was reached

    @property
    def count(self) -> int:
        """All applications of all rules."""
        return sum(self.applied.values())


def apply(
    editor: Editor, rules: Sequence[Rule], bound: int | None = None, facts: Facts | None = None
) -> Outcome:
    """Rewrite every scope of the editor's model; nodes that a rewrite names are looked at again.

    `bound` limits the applications, by default ten per node of the model. Cost: linear in nodes
    and applications. What a rule said last about a node is its near miss.
    """
    facts = facts or Facts(editor.model)
    work = deque(ir.nodes(editor.model))
    bound = 10 * len(work) if bound is None else bound
    by_op = _by_operator(rules)
    applied: Counter[str] = Counter()
    misses: dict[tuple[str, Node], str] = {}
    while work:
        node = work.popleft()
        for rule in by_op.get(ir.op(node), ()):
            if node.graph is None:  # replaced by a rule before this one
                break
            if applied.total() >= bound:
                return _outcome(applied, misses, stopped=True)
            result = _try(rule, node, editor, facts)
            if result is None:
                continue
            if isinstance(result, str):
                misses[rule.name, node] = result
                continue
            misses.pop((rule.name, node), None)
            applied[rule.name] += 1
            for touched in result:
                facts.learn(touched)
            work.extend(result)
    return _outcome(applied, misses, stopped=False)


def _by_operator(rules: Sequence[Rule]) -> dict[str, list[Rule]]:
    by_op: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        for name in rule.ops:
            by_op[name].append(rule)
    return by_op


def _try(rule: Rule, node: Node, editor: Editor, facts: Facts) -> Sequence[Node] | str | None:
    rewrite = rule.match(node, facts)
    if rewrite is None or isinstance(rewrite, str):
        return rewrite
    try:
        return rewrite(editor)
    except EditError as error:
        return str(error)


def _outcome(
    applied: Counter[str], misses: Mapping[tuple[str, Node], str], stopped: bool
) -> Outcome:
    """Near misses of nodes that are still there."""
    near = tuple(
        NearMiss(rule, node.name or str(node.outputs[0].name), reason)
        for (rule, node), reason in misses.items()
        if node.graph is not None
    )
    return Outcome(dict(applied), near, stopped)
