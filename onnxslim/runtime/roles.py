"""What an input of a model is for, as far as its name and the nodes that read it tell."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from onnxslim import ir
from onnxslim.runtime.types import TensorInfo, input_infos

Role = Literal[
    "ids", "mask", "types", "positions", "lengths", "bytes", "flag", "count", "text", "real"
]
DimKind = Literal["batch", "past", "image", "channels", "sequence"]


@dataclass(frozen=True)
class Input:
    """An input with its role; `bound` is the smallest table that its values index."""

    info: TensorInfo
    role: Role
    bound: int | None = None


_NAMED_ROLES: tuple[tuple[str, Role], ...] = (
    (r"token_type|segment|type_id", "types"),
    (r"mask", "mask"),
    (r"position|pos_id", "positions"),
    (r"len(gth)?s?($|_|\d)", "lengths"),
)


def read_inputs(model: ir.Model) -> tuple[Input, ...]:
    """The inputs that a run needs, with their roles."""
    values = zip(input_infos(model), model.graph.inputs, strict=True)
    return tuple(_read(info, value) for info, value in values if not info.optional)


def _read(info: TensorInfo, value: ir.Value) -> Input:
    kind = info.dtype.kind if info.dtype is not None else "f"
    if kind == "O":
        return Input(info, "text")
    if kind not in "biu":
        attention = "attention" in info.name.lower() and "mask" in info.name.lower()
        return Input(info, "mask" if attention else "real")
    bound = index_bound(value)
    for pattern, role in _NAMED_ROLES:
        if re.search(pattern, info.name.lower()):
            return Input(info, role, bound)
    if kind == "b":
        return Input(info, "flag")
    if bound is not None:
        return Input(info, "ids", bound)
    small = info.dtype is not None and info.dtype.itemsize == 1
    return Input(info, "bytes" if small else "count")


PASSES_ON = frozenset(
    {
        *("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose"),
        *("Expand", "Slice", "Concat", "Split", "Tile"),
    }
)
INDEXES = MappingProxyType(  # operator -> (input with the table, input with the indices)
    {
        "Gather": (0, 1),
        "GatherElements": (0, 1),
        "com.microsoft::GatherBlockQuantized": (0, 1),
        "com.microsoft::EmbedLayerNormalization": (2, 0),
    }
)


def index_bound(value: ir.Value) -> int | None:
    """The number of rows of the smallest table that an integer value selects rows of."""
    bounds: list[int] = []
    queue, seen = deque([value]), {value}
    while queue:
        for node, index in queue.popleft().uses():
            bound = _rows(node, index)
            bounds += [] if bound is None else [bound]
            if ir.op(node) in PASSES_ON and index == 0:
                fresh = [out for out in node.outputs if out not in seen]
                seen.update(fresh)
                queue.extend(fresh)
    return min(bounds, default=None)


def _rows(node: ir.Node, index: int) -> int | None:
    name = ir.op(node)
    if name == "OneHot" and index == 0:
        depth = ir.array(node.inputs[1])
        return None if depth is None else int(np.ravel(depth)[0])
    table, indices = INDEXES.get(name, (0, -1))
    if index != indices or (data := node.inputs[table]) is None or data.shape is None:
        return None
    axis = int(ir.attribute(node, "axis", 0)) if name.startswith("Gather") else 0
    rows = data.shape[axis] if -len(data.shape) <= axis < len(data.shape) else None
    return rows if isinstance(rows, int) else None


_NAMED_DIMS: tuple[tuple[str, DimKind], ...] = (
    (r"past|cache", "past"),
    (r"batch|^(bs|bsz)$", "batch"),
    (r"height|width|^[hw]$", "image"),
    (r"seq|len|time|token|frame", "sequence"),
)


def dim_kind(info: TensorInfo, axis: int) -> DimKind:
    """What a free dimension of an input counts: by its name, else by its place."""
    shape = info.shape or ()
    dim, rank = shape[axis], len(shape)
    for pattern, kind in _NAMED_DIMS:
        if isinstance(dim, str) and re.search(pattern, dim.lower()):
            return kind
    if axis == 0 and (rank > 1 or (info.dtype is not None and info.dtype.kind in "biuO")):
        return "batch"
    if rank < 4:
        return "sequence"
    channels_last = shape[-1:] in ((1,), (3,), (4,))
    return "channels" if axis == 1 and not channels_last else "image"
