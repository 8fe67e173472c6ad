"""Quantization: shapes stay, the types are those of zero points and scales."""

from __future__ import annotations

from collections.abc import Sequence

from onnxslim.analyses.facts.fact import Fact, Rules, Site
from onnxslim.ir import DataType


def _quantize(site: Site) -> Fact:
    stated = int(site.attr("output_dtype", 0))
    default = DataType(stated) if stated else DataType.UINT8
    return Fact(site.dtype(2) if site.has(2) else default, site.shape())


def _dequantize(site: Site) -> Fact:
    stated = int(site.attr("output_dtype", 0))
    return Fact(DataType(stated) if stated else site.dtype(1), site.shape())


def _dynamic(site: Site) -> Sequence[Fact]:
    return [
        Fact(DataType.UINT8, site.shape()),
        Fact(DataType.FLOAT, ()),
        Fact(DataType.UINT8, ()),
    ]


RULES: Rules = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
}
