"""The integers of one linear layer: its weight, rounded well, and its bias, corrected."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnxslim import ir
from onnxslim.analyses.layer_stats import Moments
from onnxslim.analyses.linear import Linear
from onnxslim.ir import Array
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.know.facts import Facts
from onnxslim.passes.quant.know.importance import channel_axis
from onnxslim.passes.quant.know.paired import Paired
from onnxslim.passes.quant.qparams import (
    QParams,
    QWeight,
    quantize_weight,
    top_of,
    widened_for_bias,
)
from onnxslim.passes.quant.weights.asymmetric import moved
from onnxslim.passes.quant.weights.blocks import largest_multiple
from onnxslim.passes.quant.weights.fitted import fit
from onnxslim.passes.quant.weights.rounding import round_by_covariance
from onnxslim.passes.quant.weights.shrinkage import shrunk
from onnxslim.targets.forms import DEFAULT, Form

FEW_BITS = 6
"""Up to so many bits, scales are fitted together with the integers."""


@dataclass(frozen=True)
class LayerPlan:
    """A linear layer in int8: its integers, and its bias as a real number."""

    layer: Linear
    weight: QWeight
    bias: Array | None  # float64 [out], corrected; None where there is none
    x: QParams
    shift: Array | None = None  # float64 [out]: the correction where the next node adds the bias

    def matrix(self) -> Array:
        """What the integers stand for, [G, out/G, d] float32."""
        return _matrix(self.layer, self.weight.dequantized())


def plan_layer(
    layer: Linear,
    x: QParams,
    smooth: Array | None,
    facts: Facts,
    choices: Choices,
    form: Form = DEFAULT,
    added: bool = False,
) -> LayerPlan:
    """The integers of a layer whose input has the parameters `x`, after division by `smooth`.

    `added`: the layer takes no bias, but the next node adds one, which can be corrected.
    """
    weight = _scaled_weight(layer, smooth)
    axis = 0 if layer.outputs_first else 1
    quantized = quantize_weight(weight, axis, choices.per_channel, choices.bits, form.weight)
    bias = layer.bias_vector()
    assert bias is not None
    if form.bias == "int32":
        quantized = widened_for_bias(quantized, bias, x.scale, weight)
    pair = facts.pairs.get(str(layer.node.outputs[0].name)) if choices.second_order else None
    pair = pair if pair is None or smooth is None else pair.divided(smooth)
    if choices.second_order and not form.weight.is_float:
        centred = layer.bias_index is not None or (added and choices.bias_correction)
        if pair is None:
            quantized = _rounded(layer, weight, quantized, smooth, facts, choices, centred)
        else:
            quantized = _remade(layer, weight, quantized, pair, choices, centred)
        if form.bias == "int32":
            quantized = widened_for_bias(quantized, bias, x.scale, weight)
    if pair is None or not choices.bias_correction:
        shift = _shift(layer, weight, quantized, smooth, facts, choices)
    else:
        shift = _shift_of_pair(layer, quantized, pair)
    if layer.bias_index is None:
        return LayerPlan(layer, quantized, None, x, shift if added else None)
    bias = bias if shift is None else bias + shift
    absent = layer.bias is None and not np.any(bias)
    return LayerPlan(layer, quantized, None if absent else bias, x)


def _shift(
    layer: Linear,
    weight: Array,
    quantized: QWeight,
    smooth: Array | None,
    facts: Facts,
    choices: Choices,
) -> Array | None:
    """What to add to the outputs, [out], as far as the means of the inputs are known."""
    mean = input_mean(layer, facts, choices) if choices.bias_correction else None
    if mean is None:
        return None
    mean = mean if smooth is None else mean / smooth
    return bias_correction(layer, weight, quantized, mean) / layer.spacing


def _scaled_weight(layer: Linear, smooth: Array | None) -> Array:
    """The weight in its own layout, its inputs multiplied by the divisors of the activation."""
    weight = ir.array(layer.weight)
    assert weight is not None
    if smooth is None:
        return weight
    rows = smooth if layer.transposed else smooth.reshape(-1, 1)
    return (weight * rows).astype(np.float32)


def _rounded(
    layer: Linear,
    weight: Array,
    nearest: QWeight,
    smooth: Array | None,
    facts: Facts,
    choices: Choices,
    centred: bool,
) -> QWeight:
    """The weight rounded with regard to its inputs, once for all trials.

    `centred`: something takes up the error of the mean.
    """
    moments = facts.moments(layer.tap)
    if choices.bits <= FEW_BITS:
        known = None if moments is None else _spread(moments, smooth, centred)
        return _fitted(layer, weight, nearest, known, facts, choices)
    if moments is None:
        return nearest
    key = layer.tap, id(ir.constant(layer.weight)), nearest.scale.tobytes()
    values = facts.memo.get(key)
    if values is None:
        matrix = _matrix(layer, weight).astype(np.float64)
        scale = nearest.scale.astype(np.float64).reshape(layer.groups, -1)
        spread = _spread(moments, smooth, centred)
        integers = round_by_covariance(matrix, scale, spread, top_of(nearest.numbers, choices.bits))
        facts.memo[key] = values = layer.from_rows(integers).astype(np.int8)
    return replace(nearest, values=values)


def _fitted(
    layer: Linear,
    weight: Array,
    nearest: QWeight,
    spread: Array | None,
    facts: Facts,
    choices: Choices,
) -> QWeight:
    """Integers of few bits and their scales, once for all trials; by the weight's own error where
    nothing is known of the inputs."""
    key = layer.tap, id(ir.constant(layer.weight)), nearest.scale.tobytes()
    places = (*key, "values"), (*key, "scales")
    values, scales = map(facts.memo.get, places)
    if values is None or scales is None:
        matrix = _matrix(layer, weight).astype(np.float64)
        if spread is None:
            spread = np.tile(np.eye(layer.in_features), (layer.groups, 1, 1))
        known = shrunk(spread, max(choices.samples, 1))
        scale = nearest.scale.astype(np.float64).reshape(layer.groups, -1)
        top = top_of(nearest.numbers, choices.bits)
        most = largest_multiple(nearest.numbers, choices.bits)
        integers, fitted = fit(matrix, scale, known, top, nearest.per_tensor, most)
        values = layer.from_rows(integers).astype(np.int8)
        scales = fitted.reshape(-1).astype(np.float32)
        facts.memo.update(zip(places, (values, scales), strict=True))
    return replace(nearest, values=values, scale=scales)


def _remade(
    layer: Linear,
    weight: Array,
    nearest: QWeight,
    pair: Paired,
    choices: Choices,
    centred: bool,
) -> QWeight:
    """The weight moved to make up for the errors before it, and rounded for the inputs it gets."""
    pair = pair if centred else pair.about_zero()
    count = max(choices.samples, 1)
    target = moved(_matrix(layer, weight).astype(np.float64), pair)
    own = layer.from_rows(target).astype(np.float32)
    few = choices.bits <= FEW_BITS
    axis = nearest.axis
    start = quantize_weight(own, axis, not nearest.per_tensor, choices.bits, nearest.numbers)
    scale = start.scale.astype(np.float64).reshape(layer.groups, -1)
    top = top_of(start.numbers, choices.bits)
    known = shrunk(pair.covariance, count) if few else pair.covariance
    if few:
        most = largest_multiple(start.numbers, choices.bits)
        integers, scale = fit(target, scale, known, top, start.per_tensor, most)
    else:
        integers = round_by_covariance(target, scale, known, top)
    values = layer.from_rows(integers).astype(np.int8)
    return replace(start, values=values, scale=scale.reshape(-1).astype(np.float32))


def _shift_of_pair(layer: Linear, quantized: QWeight, pair: Paired) -> Array:
    """E[y] - Wq E[x^] per output, [out]: the mean of the output as in the float model."""
    rows = _matrix(layer, quantized.dequantized().astype(np.float64))
    shift: Array = pair.target - (rows @ pair.mean[:, :, None])[:, :, 0]
    return shift.reshape(-1)


def _spread(moments: Moments, smooth: Array | None, centred: bool) -> Array:
    """What weights the errors, [G, d, d]: the covariance where a bias takes up their mean."""
    spread = moments.covariance() if centred else moments.second
    return spread if smooth is None else spread / np.outer(smooth, smooth)


def input_mean(layer: Linear, facts: Facts, choices: Choices) -> Array | None:
    """E[x] per channel [C], or per row of the layer [G * d] where that is known."""
    moments = facts.moments(layer.tap) if choices.second_order else None
    if moments is not None:
        return moments.mean.reshape(-1)
    channels = facts.channels(str(layer.input.name), channel_axis(layer))
    return None if channels is None else channels.mean


def bias_correction(layer: Linear, weight: Array, quantized: QWeight, mean: Array) -> Array:
    """(W - Wq) E[x] per output, [out]: what makes the mean of the output right again.

    `mean` is E[x] per channel, [C], in a convolution then taken for every tap of the window; or
    for each number that the layer reads, [G * d].
    Source: Nagel et al., Data-Free Quantization (2019), section 4.2.
    """
    difference: Array = weight.astype(np.float64) - quantized.dequantized()
    repeats = layer.in_features * layer.groups // len(mean)
    rows = np.repeat(mean, repeats).reshape(layer.groups, layer.in_features, 1)
    correction: Array = _matrix(layer, difference) @ rows
    return correction.reshape(-1)


def _matrix(layer: Linear, weight: Array) -> Array:
    """A weight in the layer's layout as [groups, out, d]."""
    rows = weight if layer.outputs_first else np.moveaxis(weight, 1, 0)
    return rows.reshape(layer.groups, -1, layer.in_features)
