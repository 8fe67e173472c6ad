"""Layers rounded one after the other, each for the inputs that the layers before leave it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from onnxslim import ir
from onnxslim.analyses.observe import Sampling
from onnxslim.ir import Editor
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.search import Search
from onnxslim.passes.quant.know.paired import Looking, Reader, paired, targets
from onnxslim.passes.quant.rewrite.apply import node_id, plan_for, quantize
from onnxslim.passes.quant.rewrite.plan import Plan
from onnxslim.passes.quant.weights.layers import LayerPlan
from onnxslim.pipeline.base import Context

MOST = 64
"""Layers that make up for those before them; of more layers, every second or third and so on."""

POSITIONS = 64
"""Rows per sample."""

SAMPLES = 256
"""That are run for each layer, at most, spread evenly over all."""

HELD = 256 << 20
"""Bytes of the float model's outputs that are held at a time."""


def improved(search: Search, ctx: Context, choices: Choices) -> float:
    """Round the layers for what they read in the quantized model, if the outputs gain by it on
    calibration samples; returns the signal to noise of these in dB.

    Costs a run of the quantized model up to each of at most `MOST` layers, and as many runs of the
    float model as their outputs fill `HELD`. Raises RuntimeUnavailable.
    """
    before = search.score(choices)
    pair_layers(search, ctx, choices)
    after = search.trial(choices)
    if after > before:
        return after
    search.facts.pairs.clear()
    return before


def pair_layers(search: Search, ctx: Context, choices: Choices) -> None:
    """Let the facts know what layers read once all those before them are quantized.

    Exactly one layer makes up for each error: were it known to two layers before either is
    changed, both would.
    """
    assert ctx.env.calib is not None
    samples = ctx.env.calib
    if len(samples) > SAMPLES:
        samples = samples.take([len(samples) * i // SAMPLES for i in range(SAMPLES)])
    env, sampling = ctx.env, Sampling(POSITIONS, seed=ctx.env.seed)
    looking = Looking(samples, sampling, env.threads, env.arithmetic)
    plan = plan_for(search.model, search.target, search.facts, choices)
    known = ((node, x) for node, x in plan.layers.items() if x.layer.kind != "deconv")
    layers = {node_id(node): layer for node, layer in known}
    order = list(layers)
    steps = order[:: -(-len(order) // MOST)] if order else []
    for held in _groups(steps, layers, len(looking.samples)):
        exact = targets(search.model, {name: layers[name].layer for name in held}, looking)
        for name in held:
            later = frozenset(order[order.index(name) :])
            twin = ir.snapshot(search.model)
            so_far = replace(choices, excluded=choices.excluded | later)
            quantize(Editor(twin), search.target, search.facts, so_far)
            readers = {name: _reader(plan, layers[name])}
            search.facts.pairs.update(paired(twin, readers, exact, looking))


def _groups(
    names: Sequence[str], layers: Mapping[str, LayerPlan], samples: int
) -> Iterator[Sequence[str]]:
    """Runs of neighbours whose outputs fit `HELD`; a layer that does not fit goes alone."""
    group: list[str] = []
    held = 0
    for name in names:
        layer = layers[name].layer
        size = 4 * layer.out_features * _rows(layer.in_features, samples)
        if group and held + size > HELD:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def _rows(features: int, samples: int) -> int:
    """At most so many rows, of samples with one entry each."""
    return samples * Sampling(POSITIONS).limit(features, 1, samples)


def _reader(plan: Plan, layer: LayerPlan) -> Reader:
    edge = plan.edges[layer.layer.input]
    return Reader(layer.layer, edge.dequantize, edge.smooth)
