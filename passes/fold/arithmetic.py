"""Kernels of casts, comparisons and of arithmetic that IEEE 754 rounds correctly."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Node
from onnxslim.passes.fold.operands import (
    EXACT,
    NATIVE,
    Inputs,
    Kernel,
    given,
    is_exact,
    same_types,
)


def _cast(node: Node, inputs: Inputs, opset: int) -> Array | None:
    """Only where C and numpy agree: not for floats that no integer holds."""
    x, to = given(inputs, 0), ir.attribute(node, "to")
    try:
        dtype = ir.DataType(int(to)).numpy()
    except (ValueError, TypeError):
        return None
    if dtype.kind not in NATIVE or "float16" in (x.dtype.name, dtype.name):
        return None
    if x.dtype.kind == "f" and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        whole = np.trunc(x.astype(np.float64))
        if x.size and not (np.isfinite(whole).all() and _within(whole, limits)):
            return None
    return x.astype(dtype)


def _within(whole: Array, limits: np.iinfo[Any]) -> bool:
    """The largest integers are no floats: the upper limit itself is out."""
    return bool((whole >= float(limits.min)).all() and (whole < float(limits.max)).all())


def _binary(function: Callable[[Array, Array], Array]) -> Kernel:
    def kernel(node: Node, inputs: Inputs, opset: int) -> Array | None:
        a, b = given(inputs, 0), given(inputs, 1)
        if opset < 7 or not same_types(inputs) or not is_exact(a):
            return None
        found: Array = np.asarray(function(a, b))
        return found.astype(a.dtype, copy=False)

    return kernel


def _divide(node: Node, inputs: Inputs, opset: int) -> Array | None:
    """Integers are divided as in C: towards zero."""
    a, b = given(inputs, 0), given(inputs, 1)
    if opset < 7 or not same_types(inputs) or not is_exact(a):
        return None
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if not b.all() or (a.dtype.kind == "i" and (b == -1).any()):
        return None
    quotient = a // b
    return np.asarray(quotient + ((a % b != 0) & ((a < 0) != (b < 0)))).astype(a.dtype)


def _mod(node: Node, inputs: Inputs, opset: int) -> Array | None:
    a, b = given(inputs, 0), given(inputs, 1)
    if a.dtype.kind not in "iu" or not same_types(inputs) or not b.all():
        return None
    return np.asarray(np.fmod(a, b) if ir.attribute(node, "fmod", 0) else np.mod(a, b))


def _compare(function: Callable[[Any, Any], Any]) -> Kernel:
    def kernel(node: Node, inputs: Inputs, opset: int) -> Array | None:
        a, b = given(inputs, 0), given(inputs, 1)
        if opset < 7 or not same_types(inputs):
            return None
        return np.asarray(function(a, b), np.bool_)

    return kernel


def _logical(function: Callable[[Any, Any], Any]) -> Kernel:
    def kernel(node: Node, inputs: Inputs, opset: int) -> Array | None:
        a, b = given(inputs, 0), given(inputs, 1)
        if opset < 7 or a.dtype.kind != "b" or b.dtype.kind != "b":
            return None
        return np.asarray(function(a, b))

    return kernel


def _unary(function: Callable[[Array], Any], kinds: str) -> Kernel:
    def kernel(node: Node, inputs: Inputs, opset: int) -> Array | None:
        a = given(inputs, 0)
        fits = a.dtype.kind in kinds and (a.dtype.kind in "biu" or a.dtype.name in EXACT)
        return np.asarray(function(a), a.dtype) if fits else None

    return kernel


def _extreme(function: Callable[[Array, Array], Array]) -> Kernel:
    """Min and Max of integers, and of floats without NaN and zeros, whose signs would matter."""

    def kernel(node: Node, inputs: Inputs, opset: int) -> Array | None:
        arrays = [array for array in inputs if array is not None]
        if opset < 8 or not arrays or not same_types(inputs) or not is_exact(arrays[0]):
            return None
        if any(a.dtype.kind == "f" and (np.isnan(a) | (a == 0)).any() for a in arrays):
            return None
        found = arrays[0]
        for array in arrays[1:]:
            found = np.asarray(function(found, array))
        return found

    return kernel


def _where(node: Node, inputs: Inputs, opset: int) -> Array | None:
    condition, a, b = (given(inputs, i) for i in range(3))
    return np.where(condition, a, b) if a.dtype == b.dtype else None


_MIDDLE = 0.05
"""How far from the middle of two floats a power must be, in units in the last place. The powf of
glibc errs by 0.52 of them in all (ARM optimized-routines, pow.c), 0.02 more than rounding alone."""


def _power(node: Node, inputs: Inputs, opset: int) -> Array | None:
    """Few positive float32 whose power rounds the same way wherever it is computed."""
    x, y = given(inputs, 0), given(inputs, 1)
    if opset < 7 or x.dtype != np.float32 or y.dtype != np.float32 or x.size > 64 or y.size != 1:
        return None
    exact = np.power(x.astype(np.float64), y.astype(np.float64))
    found = exact.astype(np.float32)
    if not ((x > 0) & np.isfinite(found) & (found > np.finfo(np.float32).tiny)).all():
        return None
    off = np.abs(exact - found.astype(np.float64)) / np.spacing(found).astype(np.float64)
    return np.asarray(found) if (off < 0.5 - _MIDDLE).all() else None


ARITHMETIC: dict[str, Kernel] = {
    "Cast": _cast,
    "Add": _binary(operator.add),
    "Sub": _binary(operator.sub),
    "Mul": _binary(operator.mul),
    "Div": _divide,
    "Mod": _mod,
    "Equal": _compare(operator.eq),
    "Greater": _compare(operator.gt),
    "GreaterOrEqual": _compare(operator.ge),
    "Less": _compare(operator.lt),
    "LessOrEqual": _compare(operator.le),
    "And": _logical(np.logical_and),
    "Or": _logical(np.logical_or),
    "Xor": _logical(np.logical_xor),
    "Not": _unary(np.logical_not, "b"),
    "Neg": _unary(np.negative, "if"),
    "Abs": _unary(np.absolute, "if"),
    "Pow": _power,
    "Sqrt": _unary(np.sqrt, "f"),
    "Floor": _unary(np.floor, "f"),
    "Ceil": _unary(np.ceil, "f"),
    "Min": _extreme(np.minimum),
    "Max": _extreme(np.maximum),
    "Where": _where,
}
