"""Equal transformations of layers that follow each other: which pairs, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxslim import ir
from onnxslim.analyses.linear import Linear
from onnxslim.ir import Editor, Model
from onnxslim.ir.state import assign
from onnxslim.passes.quant.asked import first_choices
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.place.fitted import Fitted, fit_channels
from onnxslim.passes.quant.place.known import Known
from onnxslim.passes.quant.place.shifted import fit_shifts
from onnxslim.passes.quant.prepare.equalize import equalize
from onnxslim.passes.quant.prepare.neighbours import Pair, Wanted, pairs
from onnxslim.passes.quant.prepare.shift import shifts
from onnxslim.passes.quant.rewrite.apply import node_id
from onnxslim.pipeline.base import Context, Environment
from onnxslim.targets import Target

if TYPE_CHECKING:
    from onnxslim.passes.quant.quant import Quant


def transformed(
    model: Model, ctx: Context, options: Quant, excluded: frozenset[str], known: Known
) -> Fitted:
    """Scale channels between layers in place and move constants of channels, where that helps.

    Costs next to nothing where nothing is `_wanted`, else what `fit_channels` and `fit_shifts` do;
    once, as what was done is kept in `known`. Raises RuntimeUnavailable.
    """
    if options.equalize == "off":
        return Fitted()
    target = ctx.env.target.written(options.scheme)
    choices = first_choices(replace(options, ranges="minmax"), excluded)
    choices = replace(choices, second_order=False, smooth=False)
    if choices in known.fitted:
        found, twin = known.fitted[choices]
        assign(model, ir.snapshot(twin))
        return found
    env = replace(ctx.env, target=target)
    found = _scaled(model, env, choices, _wanted(target, options))
    tensors = shifts(model, lambda layer: _is_static(layer, target, excluded))
    found = replace(found, shifted=fit_shifts(model, env, tensors, SMOOTHED[options.smooth]))
    known.fitted[choices] = found, ir.snapshot(model)
    return found


SMOOTHED: Mapping[str, tuple[bool, ...]] = {"auto": (False, True), "on": (True,), "off": (False,)}
"""By the option, whether tensors may be smoothed."""


def _scaled(model: Model, env: Environment, choices: Choices, wanted: Wanted) -> Fitted:
    """What is done to pairs of layers, in place."""
    if not any(map(wanted, pairs(model, bounded=True))):
        return Fitted()
    count = equalize(Editor(model), choices.bits, wanted)
    found = fit_channels(model, env, choices, wanted)
    return replace(found, equalized=max(found.equalized, count))  # some are in both


def _is_static(layer: Linear, target: Target, excluded: frozenset[str]) -> bool:
    """Whether a layer is going to read integers, as far as is known yet."""
    return ir.op(layer.node) in target.static and node_id(layer.node) not in excluded


def _wanted(target: Target, options: Quant) -> Wanted:
    """The pairs that are to be transformed: those of layers that get one scale each gain by it."""
    static = target.static

    def wanted(pair: Pair) -> bool:
        rules = [static.get(ir.op(layer.node)) for layer in (pair.first, pair.second)]
        every = options.equalize == "on" or not options.per_channel
        return all(rule is not None and (every or not rule.per_channel) for rule in rules)

    return wanted
