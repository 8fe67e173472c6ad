"""Signal to noise of a layer's output as far as the rounding of its weight goes, from its inputs.

With C the covariance of the rows that a layer reads, the output varies by tr(W C W^T) and a change
dW of the weight adds tr(dW C dW^T), the mean of which the bias takes up.
"""

from __future__ import annotations

import numpy as np

from onnxslim.analyses.moments import Moments
from onnxslim.ir import Model
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.decibels import output_power, to_db
from onnxslim.passes.quant.know.facts import Facts
from onnxslim.passes.quant.rewrite.apply import node_id, plan_for
from onnxslim.passes.quant.rewrite.plan import Plan
from onnxslim.passes.quant.weights.layers import LayerPlan
from onnxslim.targets import Target


def predicted(model: Model, target: Target, facts: Facts, choices: Choices) -> dict[str, float]:
    """Layer (`node_id`) of a float model -> dB, where the moments of its input are there already.

    Nothing is told of layers that make up for errors before them: their weights differ on purpose.
    Cost: 4 * out * d^2 multiplications for each layer.
    """
    known, found = facts.known_moments(), dict[str, float]()
    if not known:
        return found
    plan = plan_for(model, target, facts, choices)
    for node, layer in plan.layers.items():
        moments, name = known.get(layer.layer.tap), node_id(node)
        if moments is not None and name not in facts.pairs:
            found[name] = layer_db(plan, layer, moments)
    return found


def layer_db(plan: Plan, layer: LayerPlan, moments: Moments | None) -> float:
    """Of one layer; without moments its inputs count as independent and alike."""
    weight, smooth = layer.layer.matrix() / layer.layer.alpha, plan.edges[layer.layer.input].smooth
    change = (layer.matrix() if smooth is None else layer.matrix() / smooth) - weight
    if moments is None:
        return to_db(float((weight**2).sum()), float((change**2).sum()))
    spread = moments.covariance().astype(np.float32)
    return to_db(output_power(weight, spread), output_power(change, spread))
