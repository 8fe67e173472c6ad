"""Which layers keep 8 bits where all others get few: those that the outputs suffer from most.

The noise of an output is taken for the sum of what each layer adds. A layer's part is measured
with that layer alone at few bits, all others at 8 (`sensitivity` predicts what time leaves out).
Then the layers with most noise for each of their weights are widened, as long as their share
allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from onnxslim.analyses.sensitivity import sensitivities
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.predicted import layer_db
from onnxslim.passes.quant.choose.search import MARGIN_DB, Search, weight_sizes
from onnxslim.passes.quant.rewrite.apply import node_id, plan_for

SECONDS = 60.0
"""For trials of single layers; the others are predicted."""

SAMPLES = 8
"""For the trial of a single layer."""

LEAST = 1e-3
"""Of all noise, the part below which a layer is not worth its bytes."""


def widened(search: Search, choices: Choices, share: float) -> Choices:
    """The choices with some layers at 8 bits, if the outputs gain by it on calibration samples.

    `share`: of all weights, the part that these may hold at most.
    """
    plan = plan_for(search.model, search.target, search.facts, choices)
    sizes = weight_sizes(plan)
    every = frozenset(sizes)
    if not every or not share:
        return choices
    noise = _noise(
        search,
        choices,
        lambda name: replace(choices, wide=every - {name}),
        replace(choices, wide=every),
    )
    found = replace(choices, wide=chosen(noise, sizes, share))
    return found if search.score(found) > search.score(choices) + MARGIN_DB else choices


def rounding_noise(search: Search, choices: Choices) -> dict[str, float]:
    """The noise over signal of the outputs that each layer adds once its weight has 4 bits."""
    plan = plan_for(search.model, search.target, search.facts, choices)
    every = frozenset(weight_sizes(plan))
    coarse = replace(choices, coarse=every)
    return _noise(search, coarse, lambda name: replace(choices, coarse=frozenset({name})), choices)


def _noise(
    search: Search, few: Choices, one: Callable[[str], Choices], none: Choices
) -> dict[str, float]:
    """By layer, what `one` with few bits adds to the noise of `none`; `few` has all with few."""
    plan = plan_for(search.model, search.target, search.facts, few)
    base = search.trial(none, SAMPLES)
    local = {
        node_id(node): layer_db(plan, layer, search.facts.moments(layer.layer.tap))
        for node, layer in plan.layers.items()
    }
    found = sensitivities(local, lambda name: search.trial(one(name), SAMPLES), SECONDS)
    return {s.name: added(s.db, base) for s in found}


def added(db: float, base_db: float) -> float:
    """The noise over signal that makes of `base_db` the lower `db`; 0 where it is not lower."""
    return max(float(10 ** (-db / 10) - 10 ** (-base_db / 10)), 0.0)


def chosen(noise: Mapping[str, float], sizes: Mapping[str, float], share: float) -> frozenset[str]:
    """The layers with most noise per weight that together hold at most this share of all weights.

    A layer that no longer fits is passed over. Layers with next to no noise are left out.
    """
    left, least = share * sum(sizes.values()), LEAST * sum(noise.values())
    found: set[str] = set()
    for name in sorted(noise, key=lambda n: -noise[n] / sizes[n]):
        if sizes[name] <= left and noise[name] > least:
            found.add(name)
            left -= sizes[name]
    return frozenset(found)
