"""A quantized copy of the float model, which is judged, audited and, if it is kept, the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from onnxslim import ir
from onnxslim.ir import Editor, Model, Node
from onnxslim.ir.state import assign
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.know.facts import Facts
from onnxslim.passes.quant.rewrite.apply import node_id, quantize
from onnxslim.passes.quant.rewrite.plan import Plan
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.session import Audited, open_audited


@dataclass
class Trial:
    """The copy and how it was made. All nodes that there were before have different names in it.

    `ids`: name -> `node_id` of the float model; `own`: name -> what the node was called there.
    """

    choices: Choices
    model: Model
    plan: Plan
    ids: Mapping[str, str]
    own: Mapping[str, str | None]
    env: Environment

    @cached_property
    def opened(self) -> Audited:
        """Opened in ONNX Runtime once; raises RuntimeUnavailable."""
        return open_audited(self.model, threads=self.env.threads, optimize=self.env.arithmetic)

    def by_layer(self, known: Mapping[str, float]) -> dict[Node, float]:
        """What is known by the `node_id` of the float model, by the layers of the plan."""
        ids = {node: self.ids[node.name or ""] for node in self.plan.layers}
        return {node: known[name] for node, name in ids.items() if name in known}

    def adopt(self, model: Model) -> None:
        """Make the model what the copy is, with the names that its nodes had."""
        for node in self.model.graph:
            node.name = self.own.get(node.name or "", node.name)
        assign(model, self.model)


def attempt(model: Model, env: Environment, facts: Facts, choices: Choices) -> Trial:
    """Quantize a copy of a prepared model, which stays as it is."""
    twin = ir.snapshot(model)
    ids, own = _tell_apart(twin)
    plan = quantize(Editor(twin), env.target, facts, choices)
    return Trial(choices, twin, plan, ids, own, env)


def _tell_apart(model: Model) -> tuple[dict[str, str], dict[str, str | None]]:
    """Name the nodes of the main graph that have no name or that of another."""
    taken = {node.name for node in model.graph}
    ids: dict[str, str] = {}
    own: dict[str, str | None] = {}
    for node in model.graph:
        name = node.name or ""
        if not name or name in ids:
            name = node_id(node)
            while name in taken:
                name += "'"
            taken.add(name)
            own[name], node.name = node.name, name
        ids[name] = node_id(node)
    return ids, own
