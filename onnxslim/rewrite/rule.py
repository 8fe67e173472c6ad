"""What a rewrite rule is: where to look, and a match that gives a rewrite or the reason against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxslim.analyses.facts import Facts
from onnxslim.ir import Editor, Node

Rewrite = Callable[[Editor], Sequence[Node]]
"""Changes the graph and returns the nodes that are worth another look: new and touched ones.
Raises EditError, with the graph as it was, when an edit is refused."""

Match = Callable[[Node, Facts], "Rewrite | str | None"]
"""Only looks. A rewrite where all guards hold; a reason where the node nearly matched, for the
user to read; None where it is nothing of the kind."""


@dataclass(frozen=True)
class Rule:
    """A rewrite anchored at one node."""

    name: str
    ops: frozenset[str]  # of the anchor, as `ir.op` writes them
    match: Match
    summary: str = ""  # in one line, as `a -> b`
    exact: bool = True  # outputs stay equal bit for bit; else to float rounding
    makes: str = ""  # the operator that it emits, which the target must run well


@dataclass(frozen=True)
class NearMiss:
    """A node that a rule looked at and left alone."""

    rule: str
    node: str
    reason: str
