"""Kernels that move data and make it from sizes: every bit is given."""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.ir import Array, Node
from onnxslim.passes.fold.operands import NATIVE, Inputs, Kernel, given, ints


def _reshape(node: Node, inputs: Inputs, opset: int) -> Array | None:
    x, target = given(inputs, 0), ints(node, inputs, 1, "shape")
    if target is None or 0 in x.shape:
        return None
    if not ir.attribute(node, "allowzero", 0):
        target = [x.shape[i] if size == 0 else size for i, size in enumerate(target)]
    return x.reshape(target)


def _transpose(node: Node, inputs: Inputs, opset: int) -> Array:
    order = ir.attribute(node, "perm")
    return np.asarray(np.transpose(given(inputs, 0), order))


def _unsqueeze(node: Node, inputs: Inputs, opset: int) -> Array | None:
    axes = ints(node, inputs, 1, "axes")
    return None if axes is None else np.expand_dims(given(inputs, 0), tuple(axes))


def _squeeze(node: Node, inputs: Inputs, opset: int) -> Array:
    axes = ints(node, inputs, 1, "axes")
    return np.squeeze(given(inputs, 0), None if axes is None else tuple(axes))


def _flatten(node: Node, inputs: Inputs, opset: int) -> Array | None:
    x, axis = given(inputs, 0), int(ir.attribute(node, "axis", 1))
    if not 0 <= axis <= x.ndim or 0 in x.shape:
        return None
    return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)


def _gather(node: Node, inputs: Inputs, opset: int) -> Array:
    x, axis = given(inputs, 0), int(ir.attribute(node, "axis", 0))
    return np.take(x, given(inputs, 1), axis, mode="raise")


def _concat(node: Node, inputs: Inputs, opset: int) -> Array | None:
    arrays = [array for array in inputs if array is not None]
    axis = ir.attribute(node, "axis", 1 if opset < 4 else None)
    if axis is None or len({array.dtype for array in arrays}) != 1:
        return None
    return np.concatenate(arrays, int(axis))


def _slice(node: Node, inputs: Inputs, opset: int) -> Array | None:
    x = given(inputs, 0)
    starts, ends = ints(node, inputs, 1, "starts"), ints(node, inputs, 2, "ends")
    if starts is None or ends is None:
        return None
    axes = ints(node, inputs, 3, "axes") or list(range(len(starts)))
    steps = ints(node, inputs, 4, "steps") or [1] * len(starts)
    cut = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        cut[axis] = _bounds(x.shape[axis], start, end, step)
    return np.asarray(x[tuple(cut)])


def _bounds(size: int, start: int, end: int, step: int) -> slice:
    """ONNX Slice: negative bounds count from the end, then both are clamped to the axis."""
    low, high = (0, size) if step > 0 else (-1, size - 1)
    start, end = (bound + size if bound < 0 else bound for bound in (start, end))
    start, end = max(0, min(start, high)), max(low, min(end, high))
    return slice(start, None if end < 0 else end, step)


def _expand(node: Node, inputs: Inputs, opset: int) -> Array:
    x, target = given(inputs, 0), given(inputs, 1).ravel().tolist()
    shape = np.broadcast_shapes(x.shape, tuple(int(size) for size in target))
    return np.asarray(np.broadcast_to(x, shape))


def _tile(node: Node, inputs: Inputs, opset: int) -> Array | None:
    x, repeats = given(inputs, 0), given(inputs, 1)
    return None if repeats.shape != (x.ndim,) else np.tile(x, repeats.tolist())


def _constant_of_shape(node: Node, inputs: Inputs, opset: int) -> Array | None:
    value = ir.attribute(node, "value")
    fill = np.zeros(1, np.float32) if value is None else value.numpy()
    if fill.dtype.kind not in NATIVE:
        return None
    return np.full([int(n) for n in given(inputs, 0).tolist()], fill.ravel()[0], fill.dtype)


def _range(node: Node, inputs: Inputs, opset: int) -> Array | None:
    start, limit, step = (given(inputs, i) for i in range(3))
    if start.dtype.kind != "i" or start.size * limit.size * step.size != 1:
        return None
    first, end, by = (int(array.item()) for array in (start, limit, step))
    if len({start.dtype, limit.dtype, step.dtype}) != 1 or by == 0:
        return None
    return np.asarray(np.arange(first, end, by)).astype(start.dtype)


def _scatter_nd(node: Node, inputs: Inputs, opset: int) -> Array | None:
    """Only where every place is written once; else the order would matter."""
    x, indices, updates = (given(inputs, i) for i in range(3))
    if ir.attribute(node, "reduction", "none") != "none" or 0 in indices.shape:
        return None
    depth = indices.shape[-1]
    rows = indices.reshape(-1, depth)
    sizes = np.asarray(x.shape[:depth])
    if not ((rows >= -sizes) & (rows < sizes)).all():
        return None
    places: Array = np.zeros(len(rows), np.int64)
    for axis, size in enumerate(x.shape[:depth]):
        places = places * size + rows[:, axis] % size
    if np.unique(places).size != places.size:
        return None
    out: Array = np.array(x).reshape(-1, *x.shape[depth:])
    out[places] = updates.reshape(-1, *x.shape[depth:])
    return out.reshape(x.shape)


MOVING: dict[str, Kernel] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": lambda node, inputs, opset: given(inputs, 0),
    "Range": _range,
    "Reshape": _reshape,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
