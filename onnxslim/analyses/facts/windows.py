"""Convolutions and poolings: sizes of windows that slide over axes from the third on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxslim.analyses.facts import dims
from onnxslim.analyses.facts.dims import Dim
from onnxslim.analyses.facts.fact import Contradiction, Fact, Rule, Rules, Shape, Site, numbers
from onnxslim.ir import DataType


@dataclass(frozen=True)
class _Window:
    """The attributes that all of them share, one element for each spatial axis."""

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    pads: Sequence[int]
    auto_pad: str


def _window(site: Site, kernel: Sequence[int]) -> _Window:
    """Raises Contradiction where the attributes do not go with the number of axes."""
    rank = len(kernel)
    ones, zeros = [1] * rank, [0] * (2 * rank)
    window = _Window(
        [int(k) for k in kernel],
        [int(s) for s in site.attr("strides", ones)],
        [int(d) for d in site.attr("dilations", ones)],
        [int(p) for p in site.attr("pads", zeros)],
        str(site.attr("auto_pad", "NOTSET")),
    )
    lengths = (len(window.strides), len(window.dilations), len(window.pads))
    if (
        lengths != (rank, rank, 2 * rank)
        or min([*window.strides, *window.dilations], default=1) < 1
    ):
        raise Contradiction
    return window


def _slid(site: Site, size: Dim, window: _Window, i: int, ceil: bool) -> Dim:
    """How many windows fit on one axis (the formulas in ONNX's Conv and MaxPool)."""
    stride, rank = window.strides[i], len(window.kernel)
    reach = window.dilations[i] * (window.kernel[i] - 1) + 1
    if window.auto_pad.startswith("SAME"):
        if window.dilations[i] != 1:
            return site.fresh(True)
        return dims.ceil_div(size, stride)
    pads = (0, 0) if window.auto_pad == "VALID" else (window.pads[i], window.pads[i + rank])
    span = size + (pads[0] + pads[1] - reach)
    if isinstance(span, int) and span < 0:
        return site.fresh(True)
    count = dims.floor_div(span, stride) + 1
    if not ceil or dims.ceil_div(span, stride) + 1 == count:
        return count
    rounded = dims.ceil_div(span, stride) + 1
    if not isinstance(rounded, int) or not isinstance(size, int):
        return site.fresh(True)
    inside = (rounded - 1) * stride < size + pads[0]  # versions differ on windows in the padding
    return rounded if inside else site.fresh(True)


def _spatial(site: Site, shape: Shape, window: _Window, ceil: bool = False) -> Shape:
    if len(shape) != len(window.kernel) + 2:
        raise Contradiction
    return tuple(_slid(site, size, window, i, ceil) for i, size in enumerate(shape[2:]))


def _conv(weights: int, dtype: DataType | None = None, typed_by: int = 0) -> Rule:
    def rule(site: Site) -> Fact:
        made = dtype or site.dtype(typed_by)
        shape, weight = site.shape(0), site.shape(weights)
        if weight is None:
            return Fact(made, None if shape is None else _batch_only(site, shape))
        if shape is None:
            return Fact(made, (site.fresh(True), weight[0], *site.sizes(len(weight) - 2)))
        given = site.attr("kernel_shape")
        kernel = numbers(weight[2:]) if given is None else [int(k) for k in given]
        if kernel is None:
            return Fact(made, (shape[0], weight[0], *site.sizes(len(shape) - 2)))
        return Fact(made, (shape[0], weight[0], *_spatial(site, shape, _window(site, kernel))))

    return rule


def _batch_only(site: Site, shape: Shape) -> Shape:
    return (*shape[:1], *site.sizes(len(shape) - 1))


def _conv_transpose(site: Site) -> Fact | None:
    shape, weight = site.shape(0), site.shape(1)
    if shape is None or weight is None or len(shape) < 3 or len(shape) != len(weight):
        return None
    kernel = numbers(weight[2:])
    groups = int(site.attr("group", 1))
    if kernel is None or site.attr("output_shape") is not None:
        return None
    window = _window(site, kernel)
    if window.auto_pad != "NOTSET":
        return None
    extra = [int(p) for p in site.attr("output_padding", [0] * len(kernel))]
    if len(extra) != len(kernel):
        raise Contradiction
    sizes: list[Dim] = []
    for i, size in enumerate(shape[2:]):
        reach = window.dilations[i] * (kernel[i] - 1) + 1
        pads = window.pads[i] + window.pads[i + len(kernel)]
        sizes.append((size - 1) * window.strides[i] + (extra[i] + reach - pads))
    return Fact(site.dtype(), (shape[0], weight[1] * groups, *sizes))


def _pool(site: Site) -> Sequence[Fact]:
    shape = site.shape()
    kernel = site.attr("kernel_shape")
    indices = DataType.INT64
    if shape is None or kernel is None:
        return [Fact(site.dtype()), Fact(indices)]
    window = _window(site, kernel)
    ceil = bool(site.attr("ceil_mode", 0))
    made = (*shape[:2], *_spatial(site, shape, window, ceil))
    return [Fact(site.dtype(), made), Fact(indices, made)]


def _global_pool(site: Site) -> Fact:
    shape = site.shape()
    if shape is None:
        return Fact(site.dtype())
    if len(shape) < 2:
        raise Contradiction
    return Fact(site.dtype(), (*shape[:2], *[1] * (len(shape) - 2)))


RULES: Rules = {
    "Conv": _conv(1),
    "com.microsoft::FusedConv": _conv(1),
    "ConvInteger": _conv(1, DataType.INT32),
    "QLinearConv": _conv(3, typed_by=7),
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "GlobalMaxPool": _global_pool,
    "GlobalAveragePool": _global_pool,
    "GlobalLpPool": _global_pool,
}
