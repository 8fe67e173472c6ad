"""One model, one set of choices: find the regions, make the plan, put it into the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from onnxslim import ir
from onnxslim.analyses.attribution import node_id as node_id
from onnxslim.ir import Editor, Model, Node
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.know.facts import Facts
from onnxslim.passes.quant.rewrite.emit import emit
from onnxslim.passes.quant.rewrite.joined import join
from onnxslim.passes.quant.rewrite.kept_float import keep_float
from onnxslim.passes.quant.rewrite.plan import Plan, make_plan
from onnxslim.passes.quant.rewrite.products import write_products
from onnxslim.passes.quant.rewrite.regions import find_regions
from onnxslim.passes.quant.weight_only.alone import write_alone
from onnxslim.pipeline.base import Declined
from onnxslim.targets import Target


def plan_for(model: Model, target: Target, facts: Facts, choices: Choices) -> Plan:
    """The plan of a prepared model; what lacks a range is left out (each node at most once)."""
    excluded = {node for node in model.graph if node_id(node) in choices.excluded}
    unknown: dict[Node, str] = {}
    while True:
        regions = find_regions(model, target, {*excluded, *unknown})
        plan = make_plan(regions, facts, choices)
        if isinstance(plan, Plan):
            return replace(plan, declined=(*plan.declined, *_without_range(unknown, target)))
        unknown.update(plan)


def _without_range(unknown: Mapping[Node, str], target: Target) -> Iterator[Declined]:
    for node, reason in unknown.items():
        if target.static[ir.op(node)].role == "linear":
            yield Declined(node.name or node_id(node), reason)


def quantize(editor: Editor, target: Target, facts: Facts, choices: Choices) -> Plan:
    """Quantize the editor's model in place; returns what was done."""
    plan = plan_for(editor.model, target, facts, choices)
    emit(editor, plan)
    join(editor)
    write_products(editor, plan, target)
    alone = write_alone(editor, choices.alone, choices.coarse, facts)
    keep_float(editor, target)
    return replace(plan, alone=tuple(alone))
