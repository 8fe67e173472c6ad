"""Quantization with straight-through gradients.

Codes stay floats: round(x / scale) + zero, clamped. The gradient passes through the rounding as if
it were not there and is zero where codes are clamped (Bengio et al. 2013); that of the scale then
is that of LSQ (Esser et al. 2020, eq. 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxslim.passes.distill.graph.api import Tensor, torch
from onnxslim.passes.distill.graph.call import Call, Function, Unsupported

_LIMITS: Mapping[int, tuple[int, int]] = {
    2: (0, 255), 3: (-128, 127), 4: (0, 65535), 5: (-32768, 32767), 21: (0, 15), 22: (-8, 7),
}  # fmt: skip
"""The ends of the integer types that codes may have, by their numbers in ONNX."""


def rounded(x: Tensor) -> Tensor:
    """x rounded to even; its gradient is that of x."""
    return x + (torch.round(x) - x).detach()


def spread(value: Tensor, shape: Sequence[int], axis: int, block: int) -> Tensor:
    """A scale or zero point, one for all, per entry of an axis or per block, against `shape`."""
    if value.numel() == 1:
        return value.reshape(())
    axis %= len(shape)
    if block:
        wide = value.repeat_interleave(block, axis)
        return wide.narrow(axis, 0, shape[axis])
    return value.reshape([-1 if i == axis else 1 for i in range(len(shape))])


def limits(attributes: Mapping[str, Any]) -> tuple[int, int] | None:
    """The least and the largest code of a QuantizeLinear; None where it makes no integers."""
    return _LIMITS.get(attributes.get("output_dtype", 0) or 2)  # of the zero point, if it has one


def codes(x: Tensor, scale: Tensor, zero: Tensor | float, low: float, high: float) -> Tensor:
    """The codes of x as floats, with gradients for x and the scale."""
    return torch.clamp(rounded(x / scale) + zero, low, high)


def fake_quantized(x: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x on the grid of the scale: scale * clamp(round(x / scale), low, high)."""
    return scale * torch.minimum(torch.maximum(rounded(x / scale), low), high)


def _quantize(call: Call) -> Tensor:
    x, zero = call[0], call.get(2)
    axis, block = call.attr("axis", 1), call.attr("block_size", 0)
    ends = limits(call.attributes)
    if ends is None:
        raise Unsupported(f"{call.op} to type {call.attr('output_dtype')}")
    scale = spread(call[1], x.shape, axis, block)
    shift = 0.0 if zero is None else spread(zero.to(x.dtype), x.shape, axis, block)
    return codes(x, scale, shift, *ends)


def _dequantize(call: Call) -> Tensor:
    x, scale, zero = call[0], call[1], call.get(2)
    axis, block = call.attr("axis", 1), call.attr("block_size", 0)
    wide = x.to(scale.dtype)
    if zero is not None:
        wide = wide - spread(zero.to(scale.dtype), x.shape, axis, block)
    return wide * spread(scale, x.shape, axis, block)


def _dynamic_quantize(call: Call) -> Any:
    x = call[0]
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    zero = torch.clamp(torch.round(-low / scale), 0, 255)
    return codes(x, scale, zero.detach(), 0, 255), scale, zero


def _centred(call: Call, index: int, zero: Tensor | None, column: bool = False) -> Tensor:
    wide = call[index].to(call.dtype)
    if zero is None:
        return wide
    shift = zero.to(wide.dtype)
    return wide - (shift.reshape(-1, 1) if column and shift.dim() == 1 else shift)


def _matmul_integer(call: Call) -> Tensor:
    rows = call[0].dim() > 1
    return _centred(call, 0, call.get(2), rows) @ _centred(call, 1, call.get(3))


def _matmul_integer_to_float(call: Call) -> Tensor:
    """com.microsoft: (A - a_zero) @ (B - b_zero) * a_scale * b_scale + bias."""
    product = _centred(call, 0, call.get(4)) @ _centred(call, 1, call.get(5))
    bias = call.get(6)
    scaled = product * (call[2] * call[3])
    return scaled if bias is None else scaled + bias


OPS: Mapping[str, Function] = {
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "MatMulInteger": _matmul_integer,
    "QuantizeLinear": _quantize,
    "com.microsoft::DequantizeLinear": _dequantize,
    "com.microsoft::MatMulIntegerToFloat": _matmul_integer_to_float,
    "com.microsoft::QuantizeLinear": _quantize,
}
