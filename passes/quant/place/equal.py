"""Equal transformations of layers that follow each other: which pairs, and in which order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxslim import ir
from onnxslim.ir import Editor, Model
from onnxslim.ir.state import assign
from onnxslim.passes.quant.asked import first_choices
from onnxslim.passes.quant.place.fitted import Fitted, fit_channels
from onnxslim.passes.quant.place.known import Known
from onnxslim.passes.quant.prepare.equalize import equalize
from onnxslim.passes.quant.prepare.neighbours import Pair, Wanted, pairs
from onnxslim.pipeline.base import Context
from onnxslim.targets import Target

if TYPE_CHECKING:
    from onnxslim.passes.quant.quant import Quant


def transformed(
    model: Model, ctx: Context, options: Quant, excluded: frozenset[str], known: Known
) -> Fitted:
    """Scale channels between layers in place and move constants of channels, where that helps.

    Costs next to nothing where no pair of layers is `_wanted`, else what `fit_channels` does; once,
    as what was done is kept in `known`. Raises RuntimeUnavailable.
    """
    if options.equalize == "off":
        return Fitted()
    target = ctx.env.target.written(options.scheme)
    wanted = _wanted(target, options)
    if not any(map(wanted, pairs(model, bounded=True))):
        return Fitted()
    choices = first_choices(replace(options, ranges="minmax"), excluded)
    choices = replace(choices, second_order=False, smooth=False)
    if choices not in known.fitted:
        count = equalize(Editor(model), options.weight_bits, wanted)
        found = fit_channels(model, replace(ctx.env, target=target), choices, wanted)
        whole = replace(found, equalized=max(found.equalized, count))  # some are in both
        known.fitted[choices] = whole, ir.snapshot(model)
        return whole
    found, twin = known.fitted[choices]
    assign(model, ir.snapshot(twin))
    return found


def _wanted(target: Target, options: Quant) -> Wanted:
    """The pairs that are to be transformed: those of layers that get one scale each gain by it."""
    static = target.static

    def wanted(pair: Pair) -> bool:
        rules = [static.get(ir.op(layer.node)) for layer in (pair.first, pair.second)]
        every = options.equalize == "on" or not options.per_channel
        return all(rule is not None and (every or not rule.per_channel) for rule in rules)

    return wanted
