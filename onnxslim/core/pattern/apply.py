"""Applying registered matchers to a model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxslim import ir
from onnxslim.core.pattern import PatternMatcher
from onnxslim.core.pattern.registry import get_fusion_patterns
from onnxslim.errors import ModelError
from onnxslim.ir import Model
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Pass, PassResult, option

_ROUNDS = 10


@dataclass(frozen=True, kw_only=True)
class RegisteredPatterns(Pass):
    """The matchers that other packages have registered; they vouch for what they rewrite."""

    name: ClassVar[str] = "patterns"
    summary: ClassVar[str] = "applies the patterns that other packages have registered"

    skip: tuple[str, ...] = option((), "patterns that are not applied", "names of patterns")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Apply them all."""
        matchers = [m for of_name in get_fusion_patterns(self.skip).values() for m in of_name]
        result = apply_patterns(model, matchers)
        if result is model:
            return PassResult()
        ir.restore(model, result)
        return PassResult(Aspect.ALL)


def apply_patterns(model: Model, matchers: Sequence[PatternMatcher]) -> Model:
    """The model after the matchers, from the outputs on, until none matches or ten rounds.

    The main graph only. The model itself where nothing matched; also, with a warning, where it
    cannot be a `gs.Graph` or a matcher left an invalid graph.
    """
    try:
        graph = ir.to_gs(model)
        count = 0
        for _ in range(_ROUNDS):
            found = _sweep(graph, matchers)
            if not found:
                break
            graph.cleanup(remove_unused_graph_inputs=False).toposort()
            count += found
        return ir.from_gs(graph) if count else model
    except ModelError as error:
        warnings.warn(f"onnxslim.slim: registered patterns were not applied: {error}", stacklevel=2)
        return model


def _sweep(graph: Any, matchers: Sequence[PatternMatcher]) -> int:
    """One look at every node, last ones first; how many matches were rewritten."""
    fitting = [matcher for matcher in matchers if matcher.applies_to(graph.opset)]
    outputs = [id(tensor) for tensor in graph.outputs]
    count = 0
    for node in reversed(list(graph.nodes)):
        for matcher in fitting if node.outputs else ():
            if not matcher.match(node) or matcher.has_intermediate_graph_output(outputs):
                continue
            made = matcher.rewrite(opset=graph.opset)
            for name, parts in made.items():
                graph.nodes.append(_node(type(node), name, matcher.name, parts))
            if made:
                count += 1
                break
    return count


def _node(cls: Any, name: str, op: str, parts: Any) -> Any:
    return cls(
        op=parts.get("op", op),
        name=parts.get("name", name),
        attrs=dict(parts.get("attrs") or {}),
        inputs=list(parts["inputs"]),
        outputs=list(parts["outputs"]),
        domain=parts.get("domain"),
    )
