"""What a rewrite rule is: where to look, and a match that gives a rewrite or the reason against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxslim.ir import Editor, Node

Rewrite = Callable[[Editor], Sequence[Node]]
"""Changes the graph and returns the nodes that are worth another look: new and touched ones.
Raises EditError, with the graph as it was, when an edit is refused."""


@dataclass(frozen=True)
class Rule:
    """A rewrite anchored at one node. `match` only looks: all guards first, then the rewrite."""

    name: str
    ops: frozenset[str]  # of the anchor, as `ir.op` writes them
    match: Callable[[Node], Rewrite | str]


@dataclass(frozen=True)
class NearMiss:
    """A node that a rule looked at and left alone."""

    rule: str
    node: str
    reason: str
