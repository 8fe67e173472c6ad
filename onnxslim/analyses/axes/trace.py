"""Follows the atoms of every axis through a model, node by node: a table of rules by operator."""

from __future__ import annotations

from onnxslim import ir
from onnxslim.analyses.axes import (
    attention,
    elementwise,
    layers,
    movement,
    norms,
    repeats,
    reshape,
)
from onnxslim.analyses.axes.site import Rules, Site, Trace, Unfollowed
from onnxslim.analyses.facts import Facts
from onnxslim.ir import Model, Node, Value

RULES: Rules = {
    **elementwise.RULES,
    **layers.RULES,
    **norms.RULES,
    **movement.RULES,
    **reshape.RULES,
    **attention.RULES,
}


def trace(model: Model, *, width: bool = False) -> Trace:
    """The axes of all values of the main graph. What no rule follows is frozen, with the reason.

    With `width`, what is normalized over may shrink: the statistic is then over what stays.

    Inputs never shrink, and outputs must not. Cost: one visit per node; weights are not read.
    """
    found = Trace(Facts(model), width)
    for value in model.graph.inputs:
        rank = found.facts.rank(value)
        if rank is not None and not ir.is_fixed(value):
            found.axes[value] = (None,) * rank
    for node in model.graph:
        if ir.op(node) != "Constant":
            _visit(Site(node, found))
    for value in model.graph.outputs:
        for axis in found.of(value) or ():
            if axis is not None:
                found.atoms.freeze(axis, str(value.name), "output", "it is an output of the model")
    return found


def _visit(site: Site) -> None:
    rule = RULES.get(site.op)
    try:
        if rule is None:
            raise Unfollowed(f"{site.op} is not followed")
        if not repeats.passes(site):
            raise Unfollowed("it takes apart an axis that is merged with one of varying size")
        rule(site)
    except Unfollowed as refusal:
        _freeze_inputs(site, str(refusal))
        for value in site.node.outputs:
            site.trace.axes.pop(value, None)
    if site.node.attributes:
        _freeze_captured(site)


def _freeze_inputs(site: Site, reason: str) -> None:
    for value in site.node.inputs:
        _freeze(site, value, reason)


def _freeze(site: Site, value: Value | None, reason: str) -> None:
    if value is None or (value not in site.trace.axes and not ir.constant(value)):
        return
    for axis in site.trace.of(value) or ():
        site.freeze(axis, reason)


def _freeze_captured(site: Site) -> None:
    """What the graphs inside a node read of the outer one."""
    for graph in ir.subgraphs(site.node):
        for scope in ir.scope_tree(graph):
            for inner in scope:
                _freeze_read(site, inner)
            for value in scope.outputs:
                _freeze(site, value, "a graph inside of a node gives it out")


def _freeze_read(site: Site, inner: Node) -> None:
    for value in inner.inputs:
        _freeze(site, value, "a graph inside of a node reads it")
