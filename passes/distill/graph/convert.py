"""Constants and attributes of the IR as torch has them."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxslim import ir
from onnxslim.ir import Node
from onnxslim.passes.distill.graph.api import Tensor, torch
from onnxslim.passes.distill.graph.call import Unsupported

_SAME = frozenset(["uint8", "uint16", "int8", "int16", "int32", "int64", "bool"])


def to_torch(array: ir.Array, dtype: Any, device: str) -> Tensor:
    """An array as a tensor: floats of all sizes become `dtype`, 4-bit integers int8.

    Raises:
        Unsupported: it holds text or another type that torch has not.
    """
    name = array.dtype.name
    if array.dtype.kind == "f" or name == "bfloat16":
        wide = array.astype(np.float64 if dtype == torch.float64 else np.float32)
        return torch.tensor(wide, dtype=dtype, device=device)
    if name in ("int4", "uint4", "int2", "uint2"):
        return torch.tensor(array.astype(np.int8), device=device)
    if name in ("uint32", "uint64"):
        return torch.tensor(array.astype(np.int64), device=device)
    if name not in _SAME:
        raise Unsupported(f"a constant of type {name}")
    return torch.tensor(array.copy(), device=device)


def quick(tensor: Tensor) -> Tensor:
    """The tensor as convolutions are fastest with it: images and filters with channels last.

    Filters tell it where images have one channel, of which both layouts are alike.
    """
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def attributes_of(node: Node, dtype: Any, device: str) -> dict[str, Any]:
    """The attributes of a node as Python values; tensors become torch's.

    Raises:
        Unsupported: it holds graphs, or a constant that torch has not.
    """
    found: dict[str, Any] = {}
    for name, attr in node.attributes.items():
        if attr.is_ref() or attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            raise Unsupported("it holds graphs" if not attr.is_ref() else "a function's attribute")
        value: Any = attr.value
        if attr.type == ir.AttributeType.TENSOR:
            value = to_torch(value.numpy(), dtype, device)
        found[name] = value.decode() if isinstance(value, bytes) else value
    if ir.op(node).endswith("QuantizeLinear") and "Dequantize" not in node.op_type:
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        if zero is not None and (tensor := ir.constant(zero)) is not None:
            found["output_dtype"] = int(tensor.dtype)
    return found
