"""Blocks of inputs with scales of their own, as whole multiples of their channel's scale.

w is close to s * m * q with a real s for each channel, a whole m for each block of inputs and a
code q of few bits for each weight: m * q is the integer that the kernel multiplies by, which knows
nothing of blocks. Source: Lin et al., QServe (2024), section 4.1, progressive group quantization.
"""

from __future__ import annotations

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.quant.qparams import top_of
from onnxslim.targets.forms import Numbers

SIZES = (16, 8)
"""Inputs in a block: the first of them that divides a channel's inputs."""

BITS = 4
"""Up to so many bits, blocks have scales of their own: what is stored as bytes gains less."""

LARGEST = 15
"""The largest multiple: it is stored in 4 bits without a sign."""

SHARES = (1.0, 0.85, 0.7, 0.55)
"""Of the largest weight of a channel, what its largest integer may stand for."""


def block_of(features: int) -> int:
    """Inputs in one block; all of them where no size divides them."""
    return next((size for size in SIZES if features % size == 0), features)


def largest_multiple(numbers: Numbers, bits: int) -> int:
    """The largest multiple of codes of so many bits that the kernel's integers hold; 1 for none."""
    if bits > BITS or numbers.is_float:
        return 1
    return min((top_of(numbers, 8) + 1) // (top_of(numbers, bits) + 1), LARGEST)


def block_scales(
    weight: Array, scale: Array, importance: Array, top: int, most: int
) -> tuple[Array, Array]:
    """Scales of channels [G, out], and the multiple up to `most` of each weight [G, out, d].

    Those with which rounding `weight` [G, out, d] to codes from -top - 1 to top errs least, squared
    errors weighed by `importance` [G, d]. `scale` [G, out] holds the largest weights. Cost:
    `most` roundings of the weight for each of `SHARES`.
    """
    groups, out, d = weight.shape
    block = block_of(d)
    w: Array = weight.astype(np.float32).reshape(groups, out, -1, block)
    weigh: Array = importance.astype(np.float32).reshape(groups, 1, -1, block)
    least: Array = np.full((groups, out), np.inf)
    scales, times = np.ones((groups, out)), np.ones((groups, out, d // block))
    for share in SHARES:
        trial = scale * (share * top / ((top + 0.5) * most))
        errors, found = _multiples(w, trial.astype(np.float32), weigh, top, most)
        better = errors < least
        least = np.where(better, errors, least)
        scales = np.where(better, trial, scales)
        times = np.where(better[:, :, None], found, times)
    return scales, np.repeat(times, block, axis=2)


def _multiples(w: Array, scale: Array, weigh: Array, top: int, most: int) -> tuple[Array, Array]:
    """The error of each channel [G, out] with the best multiple of each block, [G, out, blocks]."""
    least: Array = np.full(w.shape[:3], np.inf, np.float32)
    times: Array = np.ones(w.shape[:3])
    for multiple in range(1, most + 1):
        step = (scale * np.float32(multiple))[:, :, None, None]
        off = w - np.minimum(np.maximum(np.rint(w / step), -top - 1), top) * step
        errors = np.einsum("goni,goni,gxni->gon", off, off, weigh)
        better = errors < least
        least, times = np.where(better, errors, least), np.where(better, multiple, times)
    return least.sum(axis=2), times


def factored(integers: Array, block: int, low: int, high: int) -> tuple[Array, Array] | None:
    """Codes from `low` to `high` [rows, blocks, block], and the smallest multiple of each block,
    [rows, blocks], whose products are `integers` [rows, d]; None where there are none."""
    values = integers.reshape(len(integers), -1, block)
    common: Array = np.maximum(np.gcd.reduce(values, axis=2), 1)
    least, most = values.min(axis=2), values.max(axis=2)
    times: Array = np.zeros_like(common)
    for multiple in range(LARGEST, 0, -1):
        fits = (common % multiple == 0) & (least >= low * multiple) & (most <= high * multiple)
        times = np.where(fits, multiple, times)
    return (values // times[:, :, None], times) if times.all() else None
