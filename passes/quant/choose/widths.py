"""Which layers keep 8 bits where all others get few: those that the outputs suffer from most.

The noise of an output is taken for the sum of what each layer adds. A layer's part is measured
with that layer alone at few bits, all others at 8 (`sensitivity` predicts what time leaves out).
Then the layers with most noise for each of their weights are widened, as long as their share
allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onnxslim.analyses.sensitivity import sensitivities
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.predicted import layer_db
from onnxslim.passes.quant.choose.search import MARGIN_DB, Search
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
    layers = {node_id(node): layer for node, layer in plan.layers.items()}
    every = frozenset(layers)
    if not every or not share:
        return choices

    def alone(name: str) -> float:
        return search.trial(replace(choices, wide=every - {name}), SAMPLES)

    base = search.trial(replace(choices, wide=every), SAMPLES)
    local = {
        name: layer_db(plan, layer, search.facts.moments(layer.layer.tap))
        for name, layer in layers.items()
    }
    noise = {s.name: added(s.db, base) for s in sensitivities(local, alone, SECONDS)}
    sizes = {name: layer.weight.values.size for name, layer in layers.items()}
    found = replace(choices, wide=chosen(noise, sizes, share))
    return found if search.score(found) > search.score(choices) + MARGIN_DB else choices


def added(db: float, base_db: float) -> float:
    """The noise over signal that makes of `base_db` the lower `db`; 0 where it is not lower."""
    return max(float(10 ** (-db / 10) - 10 ** (-base_db / 10)), 0.0)


def chosen(noise: Mapping[str, float], sizes: Mapping[str, int], share: float) -> frozenset[str]:
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
