"""Pooling over windows and over all positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnxslim.passes.distill.graph.api import Tensor, functional, torch
from onnxslim.passes.distill.graph.call import Call, Function, Unsupported
from onnxslim.passes.distill.graph.ops.layers import padded, padding

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def _windows(call: Call) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Kernel, strides, dilations, and the padding before and after, with that of ceil_mode."""
    kernel = list(call.attr("kernel_shape"))
    rank = len(kernel)
    if rank not in _MAX:
        raise Unsupported(f"{call.op} over {rank} axes")
    strides = list(call.attr("strides") or [1] * rank)
    dilations = list(call.attr("dilations") or [1] * rank)
    size = call[0].shape[2:]
    before, after = padding(call, size, kernel, strides)
    return kernel, strides, dilations, list(before), list(after)


def _filled_up(
    size: Sequence[int], windows: tuple[list[int], list[int], list[int], list[int], list[int]]
) -> list[int]:
    """More padding after each axis, so that the last window that begins inside is whole."""
    more: list[int] = []
    for n, k, s, d, b, a in zip(size, *windows, strict=True):
        reach = d * (k - 1) + 1
        count = -(-(n + b + a - reach) // s) + 1
        if (count - 1) * s >= n + b:
            count -= 1
        more.append(max((count - 1) * s + reach - (n + b + a), 0))
    return more


def _max_pool(call: Call) -> Tensor:
    if call.outputs > 1 or call.attr("storage_order", 0):
        raise Unsupported("MaxPool that gives indices")
    kernel, strides, dilations, before, after = windows = _windows(call)
    if call.attr("ceil_mode", 0):
        more = _filled_up(call[0].shape[2:], windows)
        after = [a + m for a, m in zip(after, more, strict=True)]
    x = call[0]
    whole = not x.is_floating_point()
    x = padded(x.to(torch.float64) if whole else x, before, after, float("-inf"))
    found = _MAX[len(kernel)](x, kernel, strides, 0, dilations)
    return found.to(call[0].dtype) if whole else found


def _average_pool(call: Call) -> Tensor:
    kernel, strides, dilations, before, after = windows = _windows(call)
    if any(d != 1 for d in dilations):
        raise Unsupported("AveragePool with dilations")
    x = call[0]
    more = _filled_up(x.shape[2:], windows) if call.attr("ceil_mode", 0) else [0] * len(kernel)
    last = [a + m for a, m in zip(after, more, strict=True)]
    pool = _MEAN[len(kernel)]
    mean = pool(padded(x, before, last), kernel, strides)
    if not any(before) and not any(last):
        return mean
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    if call.attr("count_include_pad", 0):
        ones = padded(ones, before, after, 1.0)
        before, last = [0] * len(kernel), more
    return mean / pool(padded(ones, before, last), kernel, strides)


def _all_positions(call: Call) -> tuple[int, ...]:
    return tuple(range(2, call[0].dim()))


def _global_lp(call: Call) -> Tensor:
    power = call.attr("p", 2)
    return call[0].abs().pow(power).sum(_all_positions(call), keepdim=True).pow(1 / power)


OPS: Mapping[str, Function] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda call: call[0].mean(_all_positions(call), keepdim=True),
    "GlobalLpPool": _global_lp,
    "GlobalMaxPool": lambda call: call[0].amax(_all_positions(call), keepdim=True),
    "MaxPool": _max_pool,
}
