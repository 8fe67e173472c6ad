"""What each operator adds to the noise of the outputs by itself, found once for all goals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf

from onnxslim.analyses.sensitivity import sensitivities
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.search import FEW, Search
from onnxslim.passes.quant.place.costs import Costs
from onnxslim.passes.quant.place.placement import Placement
from onnxslim.passes.quant.place.precisions import ALONE_4
from onnxslim.passes.quant.rewrite.apply import plan_for
from onnxslim.passes.quant.weight_only.alone import few_bits_db

SECONDS = 10.0
"""For trials of single layers with weights of 4 bits alone; the others are predicted."""


def input_noise(search: Search, placement: Placement, choices: Choices) -> Mapping[str, float]:
    """The noise over signal that each operator in int8 adds to the outputs, found once."""
    known = placement.known.noise
    if choices not in known:
        plan = plan_for(search.model, search.target, search.facts, choices)
        known[choices] = {s.name: power(s.db) for s in search.sensitivities(plan, choices)}
    return known[choices]


def noise_of_codes(
    search: Search, placement: Placement, choices: Choices, costs: Costs
) -> Mapping[str, float]:
    """The noise over signal that weights of 4 bits alone add, for those for which that is a choice:
    of each by itself, found once."""
    names, known = costs.having(ALONE_4), placement.known.rounding
    if names and choices not in known:
        rest = replace(choices, excluded=choices.excluded | frozenset(costs.names))

        def alone(name: str) -> float:
            only = frozenset({name})
            return search.trial(replace(rest, alone=only, coarse=only), FEW)

        local = few_bits_db(search.model, names, search.facts)
        known[choices] = {s.name: power(s.db) for s in sensitivities(local, alone, SECONDS)}
    return known.get(choices, {})


def power(db: float) -> float:
    """Of noise, over that of the signal, with so many dB."""
    return 10 ** (-db / 10) if db > -inf else inf
