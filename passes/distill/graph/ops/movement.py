"""Operators that move numbers without changing them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxslim.passes.distill.graph.api import Tensor, functional, torch
from onnxslim.passes.distill.graph.call import Call, Function, Unsupported


def _needed(call: Call, name: str, index: int) -> list[int]:
    found = call.ints(name, index)
    if found is None:
        raise Unsupported(f"{call.op} without {name}")
    return found


def _reshape(call: Call) -> Tensor:
    x, shape = call[0], _needed(call, "shape", 1)
    if not call.attr("allowzero", 0):
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return x.reshape(shape)


def _flatten(call: Call) -> Tensor:
    x, axis = call[0], call.attr("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    rows = 1
    for n in x.shape[:axis]:
        rows *= n
    return x.reshape(rows, -1) if x.numel() else x.reshape(rows, 0)


def _transpose(call: Call) -> Tensor:
    return call[0].permute(call.attr("perm") or list(range(call[0].dim()))[::-1])


def _squeeze(call: Call) -> Tensor:
    axes = call.ints("axes", 1)
    if axes is None:
        axes = [i for i, n in enumerate(call[0].shape) if n == 1]
    return call[0].squeeze(tuple(axes)) if axes else call[0]


def _unsqueeze(call: Call) -> Tensor:
    axes = _needed(call, "axes", 1)
    x, rank = call[0], call[0].dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


def _concat(call: Call) -> Tensor:
    return torch.cat([x for x in call.inputs if x is not None], call.attr("axis", 1))


def _split(call: Call) -> Any:
    x, axis = call[0], call.attr("axis", 0)
    sizes = call.ints("split", 1)
    if sizes is None:
        count = call.attr("num_outputs", call.outputs)
        each = -(-x.shape[axis] // count)
        sizes = [max(min(each, x.shape[axis] - i * each), 0) for i in range(count)]
    return torch.split(x, sizes, axis)


def _slice(call: Call) -> Tensor:
    x = call[0]
    starts, ends = _needed(call, "starts", 1), _needed(call, "ends", 2)
    axes = call.ints("axes", 3) or list(range(len(starts)))
    steps = call.ints("steps", 4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        if step == 1:
            chosen = slice(start, end).indices(size)
            x = x.narrow(axis, chosen[0], max(chosen[1] - chosen[0], 0))
        else:
            places = list(range(*_stops(start, end, step, size)))
            x = x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
    return x


def _stops(start: int, end: int, step: int, size: int) -> tuple[int, int, int]:
    """Of `range`: ONNX counts negative ends from the back and clamps, as Python's slices do."""
    if step > 0:
        return slice(start, end, step).indices(size)
    start = start + size if start < 0 else start
    end = end + size if end < 0 else end
    return min(max(start, 0), size - 1), min(max(end, -1), size - 1), step


def _positive(indices: Tensor, size: int) -> Tensor:
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + size, indices)


def _gather(call: Call) -> Tensor:
    x, axis = call[0], call.attr("axis", 0) % max(call[0].dim(), 1)
    indices = _positive(call[1], x.shape[axis])
    found = x.index_select(axis, indices.reshape(-1))
    return found.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _gather_elements(call: Call) -> Tensor:
    axis = call.attr("axis", 0)
    return torch.gather(call[0], axis, _positive(call[1], call[0].shape[axis]))


def _gather_nd(call: Call) -> Tensor:
    x, indices, batch = call[0], call[1].to(torch.int64), call.attr("batch_dims", 0)
    if batch:
        raise Unsupported("GatherND with batch_dims")
    columns = [_positive(indices[..., i], x.shape[i]) for i in range(indices.shape[-1])]
    return x[tuple(columns)]


def _scatter_nd(call: Call) -> Tensor:
    if call.attr("reduction", "none") != "none":
        raise Unsupported("ScatterND with a reduction")
    x, indices = call[0], call[1].to(torch.int64)
    columns = [_positive(indices[..., i], x.shape[i]) for i in range(indices.shape[-1])]
    return x.clone().index_put(tuple(columns), call[2])


def _scatter_elements(call: Call) -> Tensor:
    if call.attr("reduction", "none") != "none":
        raise Unsupported("ScatterElements with a reduction")
    axis = call.attr("axis", 0)
    return call[0].scatter(axis, _positive(call[1], call[0].shape[axis]), call[2])


def _pad(call: Call) -> Tensor:
    x, mode = call[0], call.attr("mode", "constant")
    given = call.ints("pads", 1) or []
    axes = call.ints("axes", 3) or list(range(x.dim()))
    half = len(given) // 2
    value = call.get(2)
    fill = float(call.attr("value", 0.0) if value is None else value.reshape(()))
    for axis, before, after in zip(axes, given[:half], given[half:], strict=True):
        x = _pad_axis(x, axis % x.dim(), before, after, mode, fill)
    return x


def _pad_axis(x: Tensor, axis: int, before: int, after: int, mode: str, fill: float) -> Tensor:
    size = x.shape[axis]
    if before < 0 or after < 0:
        x = x.narrow(axis, max(-before, 0), size - max(-before, 0) - max(-after, 0))
        before, after, size = max(before, 0), max(after, 0), x.shape[axis]
    if before == 0 and after == 0:
        return x
    if mode == "constant":
        pads = [0, 0] * (x.dim() - 1 - axis) + [before, after]
        return functional.pad(x, pads, value=fill if x.is_floating_point() else int(fill))
    places = torch.arange(-before, size + after, device=x.device)
    if mode == "edge":
        places = places.clamp(0, size - 1)
    elif mode == "wrap":
        places = places % size
    else:  # reflect
        turn = max(2 * (size - 1), 1)
        places = (places % turn).where(places % turn < size, turn - places % turn)
    return x.index_select(axis, places)


def _expand(call: Call) -> Tensor:
    shape = torch.broadcast_shapes(tuple(call[0].shape), tuple(_needed(call, "shape", 1)))
    return call[0].expand(shape)


def _depth_to_space(call: Call) -> Tensor:
    x, b = call[0], call.attr("blocksize")
    n, c, h, w = x.shape
    if call.attr("mode", "DCR") == "CRD":
        parts = x.reshape(n, c // (b * b), b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    else:
        parts = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // (b * b), h * b, w * b)


def _space_to_depth(call: Call) -> Tensor:
    x, b = call[0], call.attr("blocksize")
    n, c, h, w = x.shape
    order = (0, 1, 3, 5, 2, 4) if call.attr("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    parts = x.reshape(n, c, h // b, b, w // b, b).permute(order)
    return parts.reshape(n, c * b * b, h // b, w // b)


def _trilu(call: Call) -> Tensor:
    k = call.get(1)
    shift = 0 if k is None else int(k)
    return torch.triu(call[0], shift) if call.attr("upper", 1) else torch.tril(call[0], shift)


def _tile(call: Call) -> Tensor:
    return call[0].repeat(*_needed(call, "repeats", 1))


OPS: Mapping[str, Function] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Pad": _pad,
    "Reshape": _reshape,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
