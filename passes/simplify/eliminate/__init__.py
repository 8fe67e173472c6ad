"""Rules that remove nodes: outputs stay equal bit for bit, but for those that say otherwise."""

from __future__ import annotations

from onnxslim.passes.simplify.eliminate import (
    depth,
    hoist,
    joins,
    neutral,
    noop,
    shapes,
    slices,
    split,
    through_rows,
    unbind,
    views,
)
from onnxslim.rewrite import Rule

RULES: tuple[Rule, ...] = (
    *noop.RULES,
    *neutral.RULES,
    *shapes.RULES,
    *slices.RULES,
    *depth.RULES,
    *views.RULES,
    *through_rows.RULES,
    *unbind.RULES,
    *hoist.RULES,
    *split.RULES,
    *joins.RULES,
)
"""In the order in which they are tried."""
