"""Sums, means and extremes along axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from onnxslim.passes.distill.graph.api import Tensor, torch
from onnxslim.passes.distill.graph.call import Call, Function

Axes = tuple[int, ...]


def _prod(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _mean(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    return x.to(torch.float64).mean(axes, keepdim=keep).to(x.dtype)


def _reduced(function: Callable[[Tensor, Axes, bool], Tensor], one: Any) -> Function:
    """`one` is what it makes of a single number, for `noop_with_empty_axes` and scalars."""

    def run(call: Call) -> Tensor:
        x, axes = call[0], call.ints("axes", 1)
        if not axes and call.attr("noop_with_empty_axes", 0):
            return one(x)
        if x.dim() == 0:
            return one(x)
        chosen = tuple(sorted(a % x.dim() for a in axes)) if axes else tuple(range(x.dim()))
        return function(x, chosen, bool(call.attr("keepdims", 1))).to(x.dtype)

    return run


def _same(x: Tensor) -> Tensor:
    return x


def _extreme(name: str) -> Callable[[Tensor, Axes, bool], Tensor]:
    def run(x: Tensor, axes: Axes, keep: bool) -> Tensor:
        wide = x.to(torch.uint8) if x.dtype == torch.bool else x
        return getattr(torch, name)(wide, axes, keepdim=keep)

    return run


def _position(function: Any) -> Function:
    def run(call: Call) -> Tensor:
        x, axis, keep = call[0], call.attr("axis", 0), bool(call.attr("keepdims", 1))
        if not call.attr("select_last_index", 0):
            return function(x, axis, keepdim=keep)
        return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)

    return run


def _top_k(call: Call) -> Any:
    counts, axis = call.ints("k", 1), call.attr("axis", -1)
    assert counts is not None
    found = torch.sort(call[0], dim=axis, descending=bool(call.attr("largest", 1)), stable=True)
    return tuple(part.narrow(axis, 0, counts[0]) for part in found)


def _cumsum(call: Call) -> Tensor:
    axis = int(call[1])
    x = call[0].flip(axis) if call.attr("reverse", 0) else call[0]
    total = torch.cumsum(x, axis, dtype=x.dtype)
    total = total - x if call.attr("exclusive", 0) else total
    return total.flip(axis) if call.attr("reverse", 0) else total


OPS: Mapping[str, Function] = {
    "ArgMax": _position(torch.argmax),
    "ArgMin": _position(torch.argmin),
    "CumSum": _cumsum,
    "ReduceL1": _reduced(lambda x, a, k: x.abs().sum(a, keepdim=k), torch.abs),
    "ReduceL2": _reduced(lambda x, a, k: x.square().sum(a, keepdim=k).sqrt(), torch.abs),
    "ReduceLogSum": _reduced(lambda x, a, k: x.sum(a, keepdim=k).log(), torch.log),
    "ReduceLogSumExp": _reduced(lambda x, a, k: torch.logsumexp(x, a, keepdim=k), _same),
    "ReduceMax": _reduced(_extreme("amax"), _same),
    "ReduceMean": _reduced(_mean, _same),
    "ReduceMin": _reduced(_extreme("amin"), _same),
    "ReduceProd": _reduced(_prod, _same),
    "ReduceSum": _reduced(lambda x, a, k: x.sum(a, keepdim=k), _same),
    "ReduceSumSquare": _reduced(lambda x, a, k: x.square().sum(a, keepdim=k), torch.square),
    "TopK": _top_k,
}
