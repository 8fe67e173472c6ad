"""From what is known of a node's inputs to what is known of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnxslim import ir
from onnxslim.analyses.facts import (
    contrib,
    creation,
    elementwise,
    indexing,
    products,
    quantize,
    reduction,
    reshape,
    sampling,
    windows,
)
from onnxslim.analyses.facts.dims import Expr
from onnxslim.analyses.facts.fact import (
    UNKNOWN,
    Contradiction,
    Fact,
    Rule,
    Site,
    constant_fact,
)
from onnxslim.analyses.facts.fallback import by_onnx
from onnxslim.analyses.facts.scopes import merged
from onnxslim.ir import Node

RULES: Mapping[str, Rule] = {
    **elementwise.RULES,
    **creation.RULES,
    **reshape.RULES,
    **indexing.RULES,
    **products.RULES,
    **windows.RULES,
    **reduction.RULES,
    **sampling.RULES,
    **quantize.RULES,
    **contrib.RULES,
}
"""By operator as `ir.op` calls it; all others are left to ONNX's own inference."""

_BODIES = frozenset({"Loop", "Scan", "SequenceMap"})


def infer(
    node: Node,
    inputs: Sequence[Fact | None],
    branches: Sequence[Fact],
    imports: Mapping[str, int],
    fresh: Callable[[bool], Expr],
) -> Sequence[Fact]:
    """One fact for each output; nothing is known of the outputs of a node that is not valid."""
    count = len(node.outputs)
    operator = ir.op(node)
    if operator == "Constant":
        tensor = ir.constant_of(node)
        return [UNKNOWN if tensor is None else constant_fact(tensor)]
    if operator == "If":
        return merged(branches, count, fresh)
    if operator in _BODIES or any(a.is_ref() for a in node.attributes.values()):
        return [UNKNOWN] * count
    rule = RULES.get(operator)
    found: Fact | Sequence[Fact] | None = None
    if rule is not None:
        try:
            found = rule(Site(node, inputs, imports.get("", 1), fresh))
        except Contradiction:
            return [UNKNOWN] * count
    if found is None:
        return by_onnx(node, inputs, imports, fresh)
    known = [found] if isinstance(found, Fact) else list(found)
    return (known + [UNKNOWN] * count)[:count]
