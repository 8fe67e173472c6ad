"""What simplify does over a whole graph: named, listed and switched off like rules."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A name and what it does, as `a -> b`; outputs stay equal bit for bit."""

    name: str
    summary: str


FOLD = Step("fold-constants", "nodes over constants, and sizes that never vary -> their result")
BRANCHES = Step("inline-branches", "If with a constant condition -> its branch")
LOOPS = Step("unroll-loops", "Loop that runs never or once -> its initial values, its body")
COPIES = Step("remove-copies", "Identity, Dropout at rest -> their input")
CONSTANTS = Step("constants-to-initializers", "Constant -> initializer")
EQUAL_INITIALIZERS = Step("equal-initializers", "initializers of equal content -> one of them")
EQUAL_NODES = Step("equal-nodes", "the same operator on the same inputs -> one node")
FUNCTIONS = Step("unused-functions", "functions that nothing calls -> gone")
IMPORTS = Step("unused-imports", "operator sets that nothing needs -> gone")
DEAD = "unused"

STEPS: tuple[Step, ...] = (
    FOLD,
    BRANCHES,
    LOOPS,
    COPIES,
    CONSTANTS,
    EQUAL_INITIALIZERS,
    EQUAL_NODES,
    FUNCTIONS,
    IMPORTS,
)
"""In the order in which they are done."""
