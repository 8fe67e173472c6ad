"""Applies rules greedily until none matches, or until a bound that it then reports."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from onnxslim import ir
from onnxslim.analyses.facts import Facts
from onnxslim.errors import EditError, PassError
from onnxslim.ir import Editor, Node
from onnxslim.rewrite.interface import Interface
from onnxslim.rewrite.rule import NearMiss, Rule

_PER_NODE = 10


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
    """Rewrite every scope of the editor's model, from the inputs on, until no rule matches.

    Looked at again after a rewrite: the nodes that it names, what reads those, and what computes
    or reads the inputs of a node that went away. Nodes that nothing reads any more are removed at
    once, so that rules count readers that count. `bound` limits the applications, by default ten
    per node of the model. Cost: linear in nodes and applications. What a rule said last about a
    node is its near miss.

    Raises:
        PassError: a rule threw, or gave a graph output another type or shape; names the rule.
            The model is half edited then.
    """
    facts = facts or Facts(editor.model)
    work = _Worklist(ir.nodes(editor.model))
    run = _Run(editor, facts, _by_operator(rules), Interface(editor.model, facts))
    bound = _PER_NODE * len(work.queue) if bound is None else bound
    while work.queue:
        node = work.take()
        while node.graph is not None and run.applied.total() < bound:
            again = run.visit(node)
            if again is None:
                break
            work.add(again)
        if run.applied.total() >= bound:
            return run.outcome(stopped=True)
    return run.outcome(stopped=False)


class _Worklist:
    """Nodes to look at, each at most once at a time, first in, first out."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.queue = deque(nodes)
        self._waiting = set(self.queue)

    def take(self) -> Node:
        node = self.queue.popleft()
        self._waiting.discard(node)
        return node

    def add(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.graph is not None and node not in self._waiting:
                self._waiting.add(node)
                self.queue.append(node)


def _by_operator(rules: Sequence[Rule]) -> dict[str, list[Rule]]:
    by_op: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        for name in rule.ops:
            by_op[name].append(rule)
    return by_op


@dataclass
class _Run:
    editor: Editor
    facts: Facts
    by_op: Mapping[str, Sequence[Rule]]
    interface: Interface
    applied: Counter[str] = field(default_factory=Counter[str])
    misses: dict[tuple[str, Node], str] = field(default_factory=dict[tuple[str, Node], str])

    def visit(self, node: Node) -> list[Node] | None:
        """Apply the first rule that matches; the nodes to look at again, None if none does."""
        for rule in self.by_op.get(ir.op(node), ()):
            found = self._try(rule, node)
            if isinstance(found, str):
                self.misses[rule.name, node] = found
            else:
                self.misses.pop((rule.name, node), None)
            if isinstance(found, list):
                self.applied[rule.name] += 1
                return found
        return None

    def _try(self, rule: Rule, node: Node) -> list[Node] | str | None:
        """One rule at one node; its own errors become PassErrors that name both."""
        where = f"rule '{rule.name}' at node '{ir.label(node)}'"
        try:
            rewrite = rule.match(node, self.facts)
            if rewrite is None or isinstance(rewrite, str):
                return rewrite
            inputs = [value for value in node.inputs if value is not None]
            places = self.interface.places(node)
            try:
                touched = rewrite(self.editor)
            except EditError as error:
                return str(error)
            again = self._settle(node, inputs, touched)
            self.interface.check(places, touched)
        except PassError as error:
            raise PassError(f"{where}: {error}") from error
        except MemoryError:
            raise
        except Exception as error:
            raise PassError(f"{where} broke: {type(error).__name__}: {error}") from error
        return again

    def _settle(
        self, node: Node, inputs: Sequence[ir.Value], touched: Sequence[Node]
    ) -> list[Node]:
        """Learn what is new, remove what is dead; the nodes worth another look."""
        for new in touched:
            if new.graph is not None:
                self.facts.learn(new)
        above = [p for value in inputs if (p := value.producer()) is not None]
        freed = self.editor.prune([node, *above, *touched])
        around = [*touched, *freed, *above]
        beside = () if node.graph is not None else _readers(inputs)
        return list(dict.fromkeys([*around, *_read_by(touched), *beside]))

    def outcome(self, stopped: bool) -> Outcome:
        """Near misses of nodes that are still there."""
        near = tuple(
            NearMiss(rule, ir.label(node), reason)
            for (rule, node), reason in self.misses.items()
            if node.graph is not None
        )
        return Outcome(dict(sorted(self.applied.items())), near, stopped)


def _read_by(nodes: Iterable[Node]) -> list[Node]:
    return _readers(value for node in nodes for value in node.outputs)


def _readers(values: Iterable[ir.Value]) -> list[Node]:
    """What reads computed values. Constants and inputs are left out: very many nodes may share
    one, and a look at all of them after each rewrite would be quadratic."""
    return [use.node for v in values if v.producer() is not None for use in v.uses()]
