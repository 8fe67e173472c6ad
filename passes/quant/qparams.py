"""Scales and zero points from ranges, and integers from weights. Pure maths on arrays.

q = clip(round(x / scale) + zero_point, qmin, qmax) and x ~ scale * (q - zero_point): ONNX
QuantizeLinear and DequantizeLinear; rounding is to the nearest, ties to even.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnxslim.ir import Array, DataType
from onnxslim.targets.forms import INT8, UINT8, Numbers

TINY = float(np.finfo(np.float32).tiny) * 2**8  # below this a scale is no normal float32 number


@dataclass(frozen=True)
class QParams:
    """One scale and zero point for a whole tensor of integers (or 8-bit floats)."""

    scale: float
    zero_point: int
    numbers: Numbers = UINT8

    @property
    def low(self) -> float:
        """The real number that the lowest integer stands for."""
        return self.scale * (self.numbers.low - self.zero_point)

    @property
    def high(self) -> float:
        """The real number that the highest integer stands for."""
        return self.scale * (self.numbers.high - self.zero_point)

    def fake(self, x: Array) -> Array:
        """What is left of `x` after quantizing and dequantizing it; any shape, float64."""
        return self.scale * (self.quantize(x).astype(np.float64) - self.zero_point)

    def quantize(self, x: Array) -> Array:
        """`x` of any shape as numbers of the type."""
        return rounded(x / self.scale, self.numbers, self.zero_point)


def array_type(numbers: Numbers) -> np.dtype[np.generic]:
    """The numpy type of these numbers."""
    return DataType[numbers.dtype.upper().replace("_", "")].numpy()


def rounded(x: Array, numbers: Numbers, zero_point: int = 0) -> Array:
    """x + zero_point as the nearest of the type's numbers, saturated; ties to even."""
    whole = x if numbers.is_float else np.rint(x)
    return np.asarray(np.clip(whole + zero_point, numbers.low, numbers.high), array_type(numbers))


def covering(low: float, high: float, numbers: Numbers = UINT8) -> QParams:
    """The parameters of [low, high]: scale max(|low|, |high|) / top and zero point 0 where the
    type is symmetric, else those of `asymmetric`."""
    if not numbers.symmetric:
        return asymmetric(low, high, numbers)
    scale = _f32(max(abs(low), abs(high)) / numbers.high)
    return QParams(1.0 if scale < TINY else scale, 0, numbers)


def asymmetric(low: float, high: float, numbers: Numbers = UINT8) -> QParams:
    """The unsigned parameters that cover [low, high] and hold 0 exactly.

    The range is first widened to hold 0 (padding and Relu need it). A range that starts at 0
    gets zero point 0, so that a saturating QuantizeLinear does the work of a Relu.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = _f32((high - low) / numbers.high)
    if scale < TINY:
        return QParams(1.0, 0, numbers)
    zero_point = int(np.clip(np.rint(-low / scale), 0, numbers.high))
    return QParams(scale, zero_point, numbers)


def within(bottom: float, top: float, low: float, high: float, numbers: Numbers = UINT8) -> QParams:
    """The parameters of [low, high], with no integer that stands for less than `bottom` or more
    than `top` in float32: then saturation is exactly what a Clip to [bottom, top] does.

    Expects bottom <= 0 < top; infinite where nothing clips. Symmetric types hold numbers below
    `bottom` in any case: what clips then stays in front of the QuantizeLinear.
    """
    params = covering(max(low, bottom), min(high, top), numbers)
    if numbers.symmetric:
        return params
    if _f32(params.low) >= bottom and _f32(params.high) <= top:
        return params
    zero_point = params.zero_point
    if zero_point and _f32(params.low) < bottom:
        zero_point = max(zero_point - 1, 1) if bottom < 0 else 0
    limits = [params.scale, -bottom / zero_point if zero_point else np.inf]
    limits.append(top / (numbers.high - zero_point))
    scale = np.float32(min(limits))
    most = np.float32(numbers.high - zero_point)
    while most * scale > top or -np.float32(zero_point) * scale < bottom:
        scale = np.nextafter(scale, np.float32(0))
    return QParams(float(scale), zero_point, numbers)


@dataclass(frozen=True)
class Affine:
    """y = factor * x + offset, by two numbers."""

    factor: float = 1.0
    offset: float = 0.0

    def after(self, inner: Affine) -> Affine:
        """This map applied to what `inner` gives."""
        return Affine(self.factor * inner.factor, self.factor * inner.offset + self.offset)

    @property
    def trivial(self) -> bool:
        """Whether it changes nothing."""
        return self.factor == 1.0 and self.offset == 0.0


IDENTITY = Affine()


def through(affine: Affine, low: float, high: float) -> tuple[QParams, QParams]:
    """Parameters of x and of y = factor * x + offset that share their integers.

    `low` and `high` bound y. With factor > 0, QuantizeLinear with the first and
    DequantizeLinear with the second compute y from x: the affine map costs nothing. The offset
    is moved by at most half a step of y, because both zero points are whole numbers; the scale is
    stretched so that it is not moved at all where that costs under 2 % of the resolution.
    Raises ValueError where x = 0 lies outside of the range (its zero point would not be a uint8).
    """
    if affine.factor <= 0:
        raise ValueError(f"a factor of {affine.factor:g} turns the order of the integers around")
    y = asymmetric(low, high)
    steps = abs(affine.offset) / y.scale
    if steps >= 50 and (whole := np.floor(steps)) > 0:
        y = _with_scale(_f32(abs(affine.offset) / whole), low)
    zero_point = y.zero_point + round(affine.offset / y.scale)
    if not 0 <= zero_point <= 255:
        raise ValueError("zero before the affine map lies outside of the range after it")
    return QParams(_f32(y.scale / affine.factor), zero_point), y


def _with_scale(scale: float, low: float) -> QParams:
    return QParams(scale, int(np.clip(np.rint(-min(low, 0.0) / scale), 0, 255)))


def _f32(number: float) -> float:
    return float(np.float32(number))


@dataclass(frozen=True)
class QWeight:
    """A weight as int8 or float8 with one scale per output channel, zero point 0."""

    values: Array  # the weight's shape
    scale: Array  # float32 [channels]
    axis: int
    numbers: Numbers = INT8
    per_tensor: bool = False  # all scales are the same, and written as one
    bits: int = 8  # what the integers fit into

    def dequantized(self) -> Array:
        """The weight that the integers stand for, float32."""
        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        return self.values.astype(np.float32) * self.scale.reshape(shape)


def quantize_weight(
    weight: Array,
    axis: int,
    per_channel: bool = True,
    bits: int = 8,
    numbers: Numbers = INT8,
) -> QWeight:
    """Symmetric: the largest magnitude of a channel becomes the type's highest number, and for
    integers at most 2^(bits-1) - 1.

    The scale of a channel of zeros is 1. With `per_channel` off all scales are the same.
    """
    top = top_of(numbers, bits)
    axis %= weight.ndim
    others = tuple(i for i in range(weight.ndim) if i != axis)
    magnitude = np.abs(weight).max(axis=others, keepdims=True).astype(np.float64)
    if not per_channel:
        magnitude = np.broadcast_to(magnitude.max(), magnitude.shape)
    scale = (magnitude / top).astype(np.float32)
    scale = np.where(scale < TINY, np.float32(1), scale)
    values = rounded(np.clip(weight / scale, -top, top), numbers)
    scales = np.ascontiguousarray(scale.reshape(-1))
    return QWeight(values, scales, axis, numbers, per_tensor=not per_channel, bits=bits)


def top_of(numbers: Numbers, bits: int) -> int:
    """The highest number that a weight uses."""
    return numbers.high if numbers.is_float else min(numbers.high, 2 ** (bits - 1) - 1)


INT32_TOP = 2**31 - 2**16  # leaves room for the sum of products that the kernel adds to the bias


def widened_for_bias(weight: QWeight, bias: Array, x_scale: float, original: Array) -> QWeight:
    """The weight with scales large enough that the bias fits int32 at scale x * w.

    A channel of near-zero weights with a normal bias (a dead channel after BatchNormalization
    fusion) would overflow; its scale is raised, which costs precision only in that channel: there
    the integers are the nearest, a whole multiple of what fits into the weight's bits.
    """
    needed = np.abs(bias.astype(np.float64)) / (INT32_TOP * float(x_scale))
    if not (needed > weight.scale).any():
        return weight
    scale = np.maximum(weight.scale, np.nextafter(needed.astype(np.float32), np.float32(np.inf)))
    if weight.per_tensor:
        scale = np.full_like(scale, scale.max())
    shape = [1] * original.ndim
    shape[weight.axis] = -1
    exact = original / scale.reshape(shape)
    others = tuple(i for i in range(original.ndim) if i != weight.axis % original.ndim)
    highest = np.abs(exact).max(axis=others, keepdims=True)
    times = np.maximum(np.ceil(highest / top_of(weight.numbers, weight.bits)), 1)
    raised = (scale > weight.scale).reshape(shape)
    nearest = rounded(np.rint(exact / times) * times if weight.bits < 8 else exact, weight.numbers)
    return replace(weight, values=np.where(raised, nearest, weight.values), scale=scale)


def quantize_bias(bias: Array, x_scale: float, w_scale: Array) -> tuple[Array, Array]:
    """The bias as int32 [channels] and its scale x * w, float32 [channels]; zero point 0."""
    scale: Array = np.multiply(w_scale, x_scale, dtype=np.float32)
    values = np.rint(bias.astype(np.float64) / scale)
    return np.clip(values, -(2**31), 2**31 - 1).astype(np.int32), scale
