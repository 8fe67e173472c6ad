"""One model, one set of choices: find the regions, make the plan, put it into the graph."""

from __future__ import annotations

from onnxslim.ir import Editor, Model, Node
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.emit import emit
from onnxslim.passes.quant.facts import Facts
from onnxslim.passes.quant.plan import Plan, make_plan
from onnxslim.passes.quant.regions import find_regions
from onnxslim.targets import Target


def plan_for(model: Model, target: Target, facts: Facts, choices: Choices) -> Plan:
    """The plan of a prepared model; what lacks a range is left out (each node at most once)."""
    excluded = {node for node in model.graph if node_id(node) in choices.excluded}
    while True:
        plan = make_plan(find_regions(model, target, excluded), facts, choices)
        if isinstance(plan, Plan):
            return plan
        excluded |= plan


def quantize(editor: Editor, target: Target, facts: Facts, choices: Choices) -> Plan:
    """Quantize the editor's model in place; returns what was done."""
    plan = plan_for(editor.model, target, facts, choices)
    emit(editor, plan)
    return plan


def node_id(node: Node) -> str:
    """The name of its first output: unique in the model, and the same in a snapshot."""
    return str(node.outputs[0].name) if node.outputs else ""
