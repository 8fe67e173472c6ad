"""Resize as one product per axis: interpolation is linear in the numbers that it mixes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.distill.graph.api import Tensor, torch
from onnxslim.passes.distill.graph.call import Call, Function, Unsupported

Coordinates = Callable[[Array, int, int, float], Array]
"""coordinates(output positions, input size, output size, scale): where they lie in the input."""


def _half_pixel_symmetric(i: Array, n: int, m: int, s: float) -> Array:
    adjusted = m / (s * n)
    centre = n / 2 * (1 - adjusted)
    places: Array = centre + (i + 0.5) / s - 0.5
    return places


COORDINATES: Mapping[str, Coordinates] = {
    "half_pixel": lambda i, n, m, s: (i + 0.5) / s - 0.5,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": lambda i, n, m, s: (i + 0.5) / s - 0.5 if m > 1 else 0.0 * i,
    "asymmetric": lambda i, n, m, s: i / s,
    "align_corners": lambda i, n, m, s: i * (n - 1) / (m - 1) if m > 1 else 0.0 * i,
}
"""coordinate_transformation_mode of the operator's specification."""

_NEAREST: Mapping[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}


def _linear(x: Array, a: float) -> Array:
    weights: Array = np.maximum(1 - np.abs(x), 0)
    return weights


def _cubic(x: Array, a: float) -> Array:
    """Keys' kernel (1981), eq. 4."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    weights: Array = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
    return weights


def _weights(call: Call, n: int, m: int, scale: float) -> Array:
    """The matrix [m, n] that an axis is multiplied by."""
    mode, rule = (
        call.attr("mode", "nearest"),
        call.attr(
            "coordinate_transformation_mode",
            "asymmetric" if call.op == "Upsample" else "half_pixel",
        ),
    )
    if rule not in COORDINATES or call.attr("antialias", 0):
        raise Unsupported(f"{call.op} with {rule if rule not in COORDINATES else 'antialias'}")
    at = COORDINATES[rule](np.arange(m, dtype=np.float64), n, m, scale)
    matrix = np.zeros((m, n))
    rows = np.arange(m)
    if mode == "nearest":
        rounded = _NEAREST[call.attr("nearest_mode", "round_prefer_floor")]
        if call.op == "Upsample":
            rounded = np.floor
        matrix[rows, np.clip(rounded(at), 0, n - 1).astype(int)] = 1
        return matrix
    kernel, reach = (_cubic, 2) if mode == "cubic" else (_linear, 1)
    if mode == "linear":
        at = np.clip(at, 0, n - 1)
    start = np.floor(at).astype(int)
    for step in range(1 - reach, reach + 1):
        place = start + step
        weight = kernel(at - place, call.attr("cubic_coeff_a", -0.75))
        if call.attr("exclude_outside", 0):
            weight = np.where((place >= 0) & (place < n), weight, 0.0)
        np.add.at(matrix, (rows, np.clip(place, 0, n - 1)), weight)
    if call.attr("exclude_outside", 0):
        matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


def _resize(call: Call) -> Tensor:
    x = call[0]
    axes = [a % x.dim() for a in call.attr("axes") or range(x.dim())]
    scales, sizes = _extents(call, [x.shape[a] for a in axes])
    for axis, scale, size in zip(axes, scales, sizes, strict=True):
        if size != x.shape[axis] or scale != 1:
            x = _axis(x, axis, _weights(call, x.shape[axis], size, scale))
    return x


def _axis(x: Tensor, axis: int, matrix: Array) -> Tensor:
    if ((matrix == 0) | (matrix == 1)).all() and (matrix.sum(axis=1) == 1).all():
        places = torch.tensor(matrix.argmax(axis=1), device=x.device)
        return x.index_select(axis, places)
    factor = torch.tensor(matrix, dtype=x.dtype, device=x.device)
    return (x.movedim(axis, -1) @ factor.t()).movedim(-1, axis)


def _extents(call: Call, given: list[int]) -> tuple[list[float], list[int]]:
    """The scale and the new size of each axis that is resized."""
    if call.op == "Upsample" or call.version < 11:
        scales = call.attr("scales") or _floats(call.get(1))
    else:
        scales, wanted = _floats(call.get(2)), call.get(3)
        if wanted is not None and wanted.numel():
            return _of_sizes(call, given, [int(v) for v in wanted.tolist()])
    if not scales:
        raise Unsupported(f"{call.op} without scales and sizes")
    return list(scales), [int(np.floor(n * s)) for n, s in zip(given, scales, strict=True)]


def _of_sizes(call: Call, given: list[int], sizes: list[int]) -> tuple[list[float], list[int]]:
    policy = call.attr("keep_aspect_ratio_policy", "stretch")
    scales = [m / n for n, m in zip(given, sizes, strict=True)]
    if policy == "stretch":
        return scales, sizes
    one = min(scales) if policy == "not_larger" else max(scales)
    return [one] * len(given), [int(np.floor(n * one + 0.5)) for n in given]


def _floats(value: Tensor | None) -> list[float]:
    return [] if value is None else [float(v) for v in value.tolist()]


OPS: Mapping[str, Function] = {"Resize": _resize, "Upsample": _resize}
