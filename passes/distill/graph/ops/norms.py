"""Normalizations and softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxslim.passes.distill.graph.api import Tensor, functional, torch
from onnxslim.passes.distill.graph.call import Call, Function, Unsupported


def _channels(x: Tensor, vector: Tensor) -> Tensor:
    """A number per channel in the shape that x [n, c, ...] is multiplied by."""
    return vector.reshape(1, -1, *[1] * (x.dim() - 2))


def _batch_norm(call: Call) -> Tensor:
    if call.attr("training_mode", 0) or call.outputs > 1:
        raise Unsupported("BatchNormalization in training mode")
    x, scale, bias, mean, variance = call.inputs[:5]
    epsilon = call.attr("epsilon", 1e-5)
    return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


def _standardized(x: Tensor, axes: Sequence[int], epsilon: float) -> Tensor:
    centred = x - x.mean(tuple(axes), keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(tuple(axes), keepdim=True) + epsilon)


def _instance_norm(call: Call) -> Tensor:
    x = call[0]
    found = _standardized(x, range(2, x.dim()), call.attr("epsilon", 1e-5))
    return found * _channels(x, call[1]) + _channels(x, call[2])


def _group_norm(call: Call) -> Tensor:
    x, groups = call[0], call.attr("num_groups")
    parts = x.reshape(x.shape[0], groups, -1)
    found = _standardized(parts, [2], call.attr("epsilon", 1e-5)).reshape(x.shape)
    scale, bias = call[1], call[2]
    if scale.numel() != x.shape[1]:  # opset 18: one number per group
        scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
    return found * _channels(x, scale) + _channels(x, bias)


def _layer_norm(call: Call) -> Any:
    x, epsilon = call[0], call.attr("epsilon", 1e-5)
    axes = tuple(range(call.attr("axis", -1) % x.dim(), x.dim()))
    shape = x.shape[axes[0] :]
    if call.outputs == 1 and call[1].shape == shape:  # the fused one is several times as fast
        return functional.layer_norm(x, shape, call[1], call.get(2), epsilon)
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    inverse = torch.rsqrt(centred.square().mean(axes, keepdim=True) + epsilon)
    found, bias = centred * inverse * call[1], call.get(2)
    found = found if bias is None else found + bias
    return (found, mean, inverse) if call.outputs > 1 else found


def _rms(x: Tensor, axes: Sequence[int], epsilon: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(tuple(axes), keepdim=True) + epsilon)


def _rms_norm(call: Call) -> Tensor:
    if call.outputs > 1:
        raise Unsupported(f"{call.op} that gives its statistics")
    x = call[0]
    axes = range(call.attr("axis", -1) % x.dim(), x.dim())
    return _rms(x, axes, call.attr("epsilon", 1e-5)) * call[1]


def _skip_norm(call: Call) -> Any:
    """com.microsoft: x + skip (+ bias), normalized; output 3 is the sum."""
    simple = "Simplified" in call.op
    bias = call.get(3 if simple else 4)
    total = call[0] + call[1]
    total = total if bias is None else total + bias
    epsilon = call.attr("epsilon", 1e-5)
    last = [total.dim() - 1]
    found = (_rms if simple else _standardized)(total, last, epsilon) * call[2]
    if not simple and call.get(3) is not None:
        found = found + call[3]
    return (found, None, None, total)[: max(call.outputs, 1)] if call.outputs > 1 else found


def _lp_norm(call: Call) -> Tensor:
    axis, power = call.attr("axis", -1), call.attr("p", 2)
    norm = call[0].abs().pow(power).sum(axis, keepdim=True).pow(1 / power)
    return call[0] / torch.where(norm == 0, torch.ones_like(norm), norm)


def _lrn(call: Call) -> Tensor:
    x, size = call[0], call.attr("size")
    squared = x.square().unsqueeze(1)
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    pads = [0, 0] * (x.dim() - 2) + [before, after]
    windows = functional.pad(squared, pads).unfold(2, size, 1).sum(-1).squeeze(1)
    inner = call.attr("bias", 1.0) + call.attr("alpha", 1e-4) / size * windows
    return x / inner.pow(call.attr("beta", 0.75))


def _mean_variance(call: Call) -> Tensor:
    axes = call.attr("axes") or [0, 2, 3]
    centred = call[0] - call[0].mean(tuple(axes), keepdim=True)
    return centred / (centred.square().mean(tuple(axes), keepdim=True).sqrt() + 1e-9)


def _along(function: Any) -> Function:
    """Softmax and its kin: before opset 13 over all axes from `axis` on."""

    def run(call: Call) -> Tensor:
        x = call[0]
        if call.version >= 13:
            return function(x, call.attr("axis", -1))
        axis = call.attr("axis", 1) % max(x.dim(), 1)
        flat = x.reshape([*x.shape[:axis], -1])
        return function(flat, axis).reshape(x.shape)

    return run


def _hardmax(x: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


OPS: Mapping[str, Function] = {
    "BatchNormalization": _batch_norm,
    "GroupNormalization": _group_norm,
    "Hardmax": _along(_hardmax),
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _along(torch.log_softmax),
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance,
    "RMSNormalization": _rms_norm,
    "Softmax": _along(torch.softmax),
    "com.microsoft::SkipLayerNormalization": _skip_norm,
    "com.microsoft::SkipSimplifiedLayerNormalization": _skip_norm,
}
