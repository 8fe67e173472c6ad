"""Operators that multiply by weights: convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnxslim.passes.distill.graph.api import Tensor, functional, torch
from onnxslim.passes.distill.graph.call import Call, Function, Unsupported, both

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d,
}  # fmt: skip


def padding(
    call: Call, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Padding before and after each spatial axis, whatever the operator says it as."""
    rank, mode = len(size), call.attr("auto_pad", "NOTSET")
    if mode in ("NOTSET", "", "VALID"):
        given = list(call.attr("pads") or [0] * 2 * rank) if mode != "VALID" else [0] * 2 * rank
        return given[:rank], given[rank:]
    dilations = call.attr("dilations") or [1] * rank
    total = [
        max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        for n, k, s, d in zip(size, kernel, strides, dilations, strict=True)
    ]
    less = [t // 2 for t in total]
    more = [t - half for t, half in zip(total, less, strict=True)]
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """The spatial axes of x with numbers put around them."""
    if not any(before) and not any(after):
        return x
    pads = [p for pair in zip(reversed(before), reversed(after), strict=True) for p in pair]
    return functional.pad(x, pads, value=value)


def _conv(call: Call) -> Tensor:
    x, weight, bias = call[0], call[1], call.get(2)
    rank = weight.dim() - 2
    if rank not in _CONV:
        raise Unsupported(f"Conv over {rank} axes")
    strides = call.attr("strides") or [1] * rank
    dilations = call.attr("dilations") or [1] * rank
    before, after = padding(call, x.shape[2:], weight.shape[2:], strides)
    if list(before) != list(after):
        x, before = padded(x, before, after), [0] * rank
    return _CONV[rank](x, weight, bias, strides, before, dilations, call.attr("group", 1))


_ACTIVATIONS: Mapping[str, Callable[..., Tensor]] = {
    "": lambda x: x,
    "Clip": torch.clamp,
    "HardSigmoid": lambda x, alpha, beta: torch.clamp(alpha * x + beta, 0, 1),
    "LeakyRelu": functional.leaky_relu,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
}
"""What com.microsoft.FusedConv may end with, of the sum and `activation_params`."""


def _fused_conv(call: Call) -> Tensor:
    name = call.attr("activation", "")
    if name not in _ACTIVATIONS:
        raise Unsupported(f"FusedConv with the activation {name}")
    found, added = _conv(call), call.get(3)
    found = found if added is None else found + added
    return _ACTIVATIONS[name](found, *(call.attr("activation_params") or ()))


def _conv_transpose(call: Call) -> Tensor:
    x, weight, bias = call[0], call[1], call.get(2)
    rank = weight.dim() - 2
    if rank not in _TRANSPOSED:
        raise Unsupported(f"ConvTranspose over {rank} axes")
    strides = call.attr("strides") or [1] * rank
    dilations = call.attr("dilations") or [1] * rank
    extra = call.attr("output_padding") or [0] * rank
    full = _TRANSPOSED[rank](x, weight, bias, strides, 0, extra, call.attr("group", 1), dilations)
    before, after = _cropping(call, x, full, strides)
    for axis in range(rank):
        size = full.shape[axis + 2]
        short = size - before[axis] - after[axis]
        if before[axis] < 0 or after[axis] < 0:
            raise Unsupported("ConvTranspose with an output larger than its windows")
        full = full.narrow(axis + 2, before[axis], short)
    return full


def _cropping(
    call: Call, x: Tensor, full: Tensor, strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    rank = len(strides)
    shape, mode = call.attr("output_shape"), call.attr("auto_pad", "NOTSET")
    if shape is None and mode not in ("SAME_UPPER", "SAME_LOWER"):
        pads = call.attr("pads") or [0] * 2 * rank
        return list(pads[:rank]), list(pads[rank:])
    wanted = shape or [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    total = [full.shape[i + 2] - wanted[i] for i in range(rank)]
    less = [t // 2 for t in total]
    more = [t - half for t, half in zip(total, less, strict=True)]
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def _gemm(call: Call) -> Tensor:
    a = call[0].t() if call.attr("transA", 0) else call[0]
    b = call[1].t() if call.attr("transB", 0) else call[1]
    alpha, beta = call.attr("alpha", 1.0), call.attr("beta", 1.0)
    product = a @ b if alpha == 1 else alpha * (a @ b)
    c = call.get(2)
    return product if c is None else product + (c if beta == 1 else beta * c)


def _einsum(call: Call) -> Tensor:
    return torch.einsum(call.attr("equation"), *call.inputs)


def _fused_matmul(call: Call) -> Tensor:
    a, b = call[0], call[1]
    a = a.transpose(-1, -2) if call.attr("transA", 0) else a
    b = b.transpose(-1, -2) if call.attr("transB", 0) else b
    return call.attr("alpha", 1.0) * (a @ b)


def _heads(x: Tensor, count: int) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def _multi_head(call: Call) -> Tensor:
    """com.microsoft.MultiHeadAttention with query, key and value of [batch, sequence, hidden]."""
    if any(call.get(i) is not None for i in (4, 6, 7)) or call.get(2) is None:
        raise Unsupported("MultiHeadAttention with a padding mask, a cache or packed inputs")
    if any(x.dim() != 3 for x in call.inputs[:3] if x is not None):
        raise Unsupported("MultiHeadAttention with packed inputs")
    q, k, v = call[0], call[1], call[2]
    if (bias := call.get(3)) is not None:
        parts = torch.split(bias, [q.shape[-1], k.shape[-1], v.shape[-1]])
        q, k, v = q + parts[0], k + parts[1], v + parts[2]
    q, k, v = (_heads(x, call.attr("num_heads")) for x in (q, k, v))
    scale = call.attr("scale") or q.shape[-1] ** -0.5
    scores = q @ k.transpose(-1, -2) * scale
    if (added := call.get(5)) is not None:
        scores = scores + added
    if call.attr("unidirectional", 0):
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    mixed = torch.softmax(scores, -1) @ v
    return mixed.transpose(1, 2).reshape(mixed.shape[0], mixed.shape[2], -1)


OPS: Mapping[str, Function] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": both(torch.matmul),
    "com.microsoft::FusedConv": _fused_conv,
    "com.microsoft::FusedMatMul": _fused_matmul,
    "com.microsoft::MultiHeadAttention": _multi_head,
}
