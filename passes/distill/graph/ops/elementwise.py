"""Operators that work number by number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

from onnxslim.passes.distill.graph.api import Tensor, functional, torch
from onnxslim.passes.distill.graph.call import Call, Function, Unsupported, both, first

_TYPES: Mapping[int, Any] = {
    2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
}  # fmt: skip
_FLOATS = frozenset({1, 10, 11, 16})
"""Numbers of onnx.TensorProto.DataType."""


def dtype_of(number: int, call: Call) -> Any:
    """The torch type of an ONNX type: all floats are the program's.

    Raises:
        Unsupported: torch has no such type.
    """
    if number in _FLOATS:
        return call.dtype
    if number not in _TYPES:
        raise Unsupported(f"type {number}")
    return _TYPES[number]


def _cast(call: Call) -> Tensor:
    return call[0].to(dtype_of(call.attr("to"), call))


def _clip(call: Call) -> Tensor:
    low, high = call.attr("min"), call.attr("max")
    low = call.get(1) if low is None else low
    high = call.get(2) if high is None else high
    return call[0] if low is None and high is None else torch.clamp(call[0], low, high)


def _div(call: Call) -> Tensor:
    whole = not call[0].is_floating_point()
    return torch.div(call[0], call[1], rounding_mode="trunc" if whole else None)


def _mod(call: Call) -> Tensor:
    return torch.fmod(*call.inputs) if call.attr("fmod", 0) else torch.remainder(*call.inputs)


def _pow(call: Call) -> Tensor:
    return torch.pow(call[0], call[1]).to(call[0].dtype)


def _prelu(call: Call) -> Tensor:
    return torch.where(call[0] < 0, call[0] * call[1], call[0])


def _gelu(call: Call) -> Tensor:
    return functional.gelu(call[0], approximate=call.attr("approximate", "none"))


def _hard_sigmoid(call: Call) -> Tensor:
    return torch.clamp(call.attr("alpha", 0.2) * call[0] + call.attr("beta", 0.5), 0, 1)


def _swish(call: Call) -> Tensor:
    return call[0] * torch.sigmoid(call.attr("alpha", 1.0) * call[0])


def _quick_gelu(call: Call) -> Tensor:
    return call[0] * torch.sigmoid(call.attr("alpha", 1.702) * call[0])


def _selu(call: Call) -> Tensor:
    alpha, gamma = call.attr("alpha", 1.6732632), call.attr("gamma", 1.0507010)
    return gamma * functional.elu(call[0], alpha)


def _celu(call: Call) -> Tensor:
    return functional.celu(call[0], call.attr("alpha", 1.0))


def _shrink(call: Call) -> Tensor:
    x, bias, limit = call[0], call.attr("bias", 0.0), call.attr("lambd", 0.5)
    zero = torch.zeros_like(x)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero))


def _thresholded(call: Call) -> Tensor:
    return torch.where(call[0] > call.attr("alpha", 1.0), call[0], torch.zeros_like(call[0]))


def _is_inf(call: Call) -> Tensor:
    up, down = call.attr("detect_positive", 1), call.attr("detect_negative", 1)
    found = torch.zeros_like(call[0], dtype=torch.bool)
    found = found | torch.isposinf(call[0]) if up else found
    return found | torch.isneginf(call[0]) if down else found


def _dropout(call: Call) -> Any:
    if call.get(2) is not None and bool(call[2]):
        raise Unsupported("Dropout in training mode")
    kept = torch.ones_like(call[0], dtype=torch.bool)
    return (call[0], kept) if call.outputs > 1 else call[0]


def _folded(function: Callable[..., Tensor]) -> Function:
    """Of any number of inputs, two at a time."""
    return lambda call: reduce(function, [x for x in call.inputs if x is not None])


def _mean(call: Call) -> Tensor:
    return _folded(torch.add)(call) / len(call.inputs)


def _attributed(function: Callable[..., Tensor], name: str, default: float) -> Function:
    return lambda call: function(call[0], call.attr(name, default))


_UNARY: Mapping[str, Callable[..., Tensor]] = {
    "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin,
    "Asinh": torch.asinh, "Atan": torch.atan, "Atanh": torch.atanh, "Ceil": torch.ceil,
    "Cos": torch.cos, "Cosh": torch.cosh, "Erf": torch.erf, "Exp": torch.exp,
    "Floor": torch.floor, "HardSwish": functional.hardswish, "Identity": lambda x: x,
    "IsNaN": torch.isnan, "Log": torch.log, "Mish": functional.mish, "Neg": torch.neg,
    "Not": torch.logical_not, "Reciprocal": torch.reciprocal, "Relu": torch.relu,
    "Round": torch.round, "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin,
    "Sinh": torch.sinh, "Softplus": functional.softplus, "Softsign": functional.softsign,
    "Sqrt": torch.sqrt, "Tan": torch.tan, "Tanh": torch.tanh,
    "com.microsoft::Gelu": functional.gelu,
}  # fmt: skip

_BINARY: Mapping[str, Callable[..., Tensor]] = {
    "Add": torch.add, "And": torch.logical_and, "Equal": torch.eq, "Greater": torch.gt,
    "GreaterOrEqual": torch.ge, "Less": torch.lt, "LessOrEqual": torch.le, "Mul": torch.mul,
    "Or": torch.logical_or, "Sub": torch.sub, "Xor": torch.logical_xor,
}  # fmt: skip

OPS: Mapping[str, Function] = {
    **{name: first(function) for name, function in _UNARY.items()},
    **{name: both(function) for name, function in _BINARY.items()},
    "Cast": _cast,
    "CastLike": lambda call: call[0].to(call[1].dtype),
    "Celu": _celu,
    "Clip": _clip,
    "Div": _div,
    "Dropout": _dropout,
    "Elu": _attributed(functional.elu, "alpha", 1.0),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "IsInf": _is_inf,
    "LeakyRelu": _attributed(functional.leaky_relu, "alpha", 0.01),
    "Max": _folded(torch.maximum),
    "Mean": _mean,
    "Min": _folded(torch.minimum),
    "Mod": _mod,
    "Pow": _pow,
    "PRelu": _prelu,
    "Selu": _selu,
    "Shrink": _shrink,
    "Sum": _folded(torch.add),
    "Swish": _swish,
    "ThresholdedRelu": _thresholded,
    "Where": lambda call: torch.where(call[0], call[1], call[2]),
    "com.microsoft::BiasGelu": lambda call: functional.gelu(call[0] + call[1]),
    "com.microsoft::QuickGelu": _quick_gelu,
}
