"""Where a linear layer reads: the rows of numbers that its weight matrix is multiplied with.

A `Tap` names a tensor and the way a layer looks at it. `columns` cuts the tensor accordingly, so
that for every linear layer `output = matrix @ row + bias` holds row by row (im2col for Conv).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from onnxslim.ir import Array


@dataclass(frozen=True)
class Window:
    """The sliding window of a convolution; one number per spatial axis, `pads` begins then ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str = "NOTSET"  # SAME_UPPER and SAME_LOWER depend on the size of the input

    def padding(self, spatial: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Zeros before and after each spatial axis of an input of this size (ONNX `auto_pad`)."""
        rank = len(self.kernel)
        if self.auto_pad in ("NOTSET", ""):
            return tuple((self.pads[i], self.pads[rank + i]) for i in range(rank))
        if self.auto_pad == "VALID":
            return ((0, 0),) * rank
        return tuple(self._same(axis, size) for axis, size in enumerate(spatial))

    def _same(self, axis: int, size: int) -> tuple[int, int]:
        stride = self.strides[axis]
        total = (-(-size // stride) - 1) * stride + self._reach(axis) - size
        small, large = max(total, 0) // 2, max(total, 0) - max(total, 0) // 2
        return (small, large) if self.auto_pad == "SAME_UPPER" else (large, small)

    def _reach(self, axis: int) -> int:
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def positions(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """The spatial size of the output for an input of this spatial size."""
        padded = [n + sum(p) for n, p in zip(spatial, self.padding(spatial), strict=True)]
        return tuple(
            (n - self._reach(axis)) // self.strides[axis] + 1 for axis, n in enumerate(padded)
        )


@dataclass(frozen=True)
class Tap:
    """A tensor of the main graph and how layers read it; layers that read it alike share a tap.

    Without a window the features lie on `axis`; with one, on the channel axis and in the window.
    """

    tensor: str
    window: Window | None = None
    groups: int = 1
    axis: int = -1  # of the features, where there is no window


def row_count(tap: Tap, shape: tuple[int, ...]) -> int:
    """How many rows a tensor of this shape has at the tap."""
    if tap.window is not None:
        return shape[0] * prod(tap.window.positions(shape[2:]))
    return prod(shape) // max(shape[tap.axis], 1)


def feature_count(tap: Tap, shape: tuple[int, ...]) -> int:
    """The length of one row of one group."""
    if tap.window is not None:
        return shape[1] // tap.groups * prod(tap.window.kernel)
    return shape[tap.axis] // tap.groups


def columns(x: Array, tap: Tap, rows: Array | None = None) -> Array:
    """The rows of a tensor at a tap, [groups, n, d] in the dtype of `x`.

    `rows` selects some of the `row_count` rows by index. In a row of a convolution the channel
    varies slowest, as in the flattened weight [out, C/groups * prod(kernel)]. Cost: one gather.
    """
    if tap.window is not None:
        flat = _windows(x, tap.window, rows)
    else:
        flat = np.moveaxis(x, tap.axis, -1).reshape(-1, x.shape[tap.axis])
        flat = flat if rows is None else flat[rows]
    grouped = flat.reshape(flat.shape[0], tap.groups, flat.shape[1] // tap.groups)
    return np.ascontiguousarray(np.transpose(grouped, (1, 0, 2)))


def _windows(x: Array, window: Window, rows: Array | None) -> Array:
    """[N, C, *spatial] -> [n, C * prod(kernel)]."""
    positions = window.positions(x.shape[2:])
    count = prod(positions)
    chosen: Array = np.arange(int(x.shape[0]) * count) if rows is None else rows
    image, position = np.divmod(chosen, count)
    index, inside = _read_places(window, x.shape[2:], np.unravel_index(position, positions))
    flat: Array = x.reshape(x.shape[0], x.shape[1], -1)
    gathered: Array
    if index.size < x.shape[0] * flat.shape[2]:  # few: not worth a copy of the tensor
        gathered = flat[image[:, None], :, index]  # [n, kernel, C]
    else:
        gathered = np.ascontiguousarray(np.moveaxis(flat, 1, -1))[image[:, None], index]
    gathered[~inside] = 0
    return np.transpose(gathered, (0, 2, 1)).reshape(len(gathered), -1)


def _read_places(
    window: Window, spatial: tuple[int, ...], position: tuple[Array, ...]
) -> tuple[Array, Array]:
    """Flat indices [n, prod(kernel)] of what each window covers, and what of it is no padding."""
    within = np.unravel_index(np.arange(prod(window.kernel)), window.kernel)
    index: Array = np.zeros((len(position[0]), prod(window.kernel)), np.int64)
    inside: Array = np.ones(index.shape, np.bool_)
    for axis, (size, padding) in enumerate(zip(spatial, window.padding(spatial), strict=True)):
        start = position[axis] * window.strides[axis] - padding[0]
        place = start[:, None] + (within[axis] * window.dilations[axis])[None, :]
        inside &= (place >= 0) & (place < size)
        index = index * size + np.clip(place, 0, size - 1)
    return index, inside
