"""Shapes, ranges and constants: what carries no gradient."""

from __future__ import annotations

from collections.abc import Mapping

from onnxslim.passes.distill.graph.api import Tensor, torch
from onnxslim.passes.distill.graph.call import Call, Function, Unsupported
from onnxslim.passes.distill.graph.ops.elementwise import dtype_of


def _constant(call: Call) -> Tensor:
    for name, dtype in (("value_float", call.dtype), ("value_floats", call.dtype),
                        ("value_int", torch.int64), ("value_ints", torch.int64)):  # fmt: skip
        if call.attr(name) is not None:
            return torch.tensor(call.attr(name), dtype=dtype)
    value = call.attr("value")
    if value is None:
        raise Unsupported("a Constant that is no number")
    return value


def _shape(call: Call) -> Tensor:
    start, end = call.attr("start", 0), call.attr("end")
    return torch.tensor(list(call[0].shape)[start:end], dtype=torch.int64)


def _constant_of_shape(call: Call) -> Tensor:
    shape, value = call.ints("shape", 0), call.attr("value")
    assert shape is not None
    if value is None:
        return torch.zeros(shape, dtype=call.dtype)
    return value.reshape(()).expand(shape).clone()


def _range(call: Call) -> Tensor:
    start, stop, step = (x.reshape(()).item() for x in call.inputs[:3] if x is not None)
    return torch.arange(start, stop, step, dtype=call[0].dtype, device=call[0].device)


def _one_hot(call: Call) -> Tensor:
    axis, depth = call.attr("axis", -1), int(call[1].reshape(-1)[0])
    off, on = call[2][0], call[2][1]
    indices = call[0].to(torch.int64)
    known = (indices >= -depth) & (indices < depth)
    hot = torch.nn.functional.one_hot(indices % depth, depth).to(torch.bool)
    hot = hot & known.unsqueeze(-1)
    return torch.where(hot, on, off).movedim(-1, axis)


def _eye_like(call: Call) -> Tensor:
    x, number = call[0], call.attr("dtype")
    rows, columns = x.shape
    places = torch.arange(columns) - torch.arange(rows)[:, None]
    dtype = x.dtype if number is None else dtype_of(number, call)
    return (places == call.attr("k", 0)).to(dtype)


def _non_zero(call: Call) -> Tensor:
    return torch.nonzero(call[0]).t()


def _size(call: Call) -> Tensor:
    return torch.tensor(call[0].numel(), dtype=torch.int64)


OPS: Mapping[str, Function] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "EyeLike": _eye_like,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "Range": _range,
    "Shape": _shape,
    "Size": _size,
}
