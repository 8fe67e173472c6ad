"""Matrix products, as numpy shapes them."""

from __future__ import annotations

from onnxslim.analyses.facts.elementwise import broadcast
from onnxslim.analyses.facts.fact import Contradiction, Fact, Rule, Rules, Shape, Site
from onnxslim.ir import DataType


def _product(one: Shape, two: Shape) -> Shape:
    """numpy.matmul's shape. Raises Contradiction."""
    if not one or not two:
        raise Contradiction
    inner = one[len(one) - 1], two[max(len(two) - 2, 0)]
    if isinstance(inner[0], int) and isinstance(inner[1], int) and inner[0] != inner[1]:
        raise Contradiction
    batch = broadcast([one[:-2], two[:-2]])
    rows = one[-2:-1]  # none for a vector
    columns = two[-1:] if len(two) > 1 else ()
    return (*batch, *rows, *columns)


def _matmul(second: int, dtype: DataType | None = None, typed_by: int = 0) -> Rule:
    def rule(site: Site) -> Fact:
        one, two = site.shape(0), site.shape(second)
        shape = None if one is None or two is None else _product(one, two)
        return Fact(dtype or site.dtype(typed_by), shape)

    return rule


def _gemm(site: Site) -> Fact:
    """alpha A' B' + beta C; C is broadcast into it, as before opset 7 where `broadcast` says so."""
    one, two = site.shape(0), site.shape(1)
    if any(shape is not None and len(shape) != 2 for shape in (one, two)):
        raise Contradiction
    rows = site.fresh(True) if one is None else one[1 if site.attr("transA", 0) else 0]
    columns = site.fresh(True) if two is None else two[0 if site.attr("transB", 0) else 1]
    return Fact(site.dtype() or site.dtype(1), (rows, columns))


def _attention(site: Site) -> Fact:
    """Queries [B, S, E] and values [B, T, F] give [B, S, F]."""
    queries, values = site.shape(0), site.shape(2)
    known = queries is not None and values is not None and len(queries) == len(values) == 3
    return Fact(site.dtype(), (*queries[:2], values[2]) if queries and values and known else None)


RULES: Rules = {
    "MatMul": _matmul(1),
    "MatMulInteger": _matmul(1, DataType.INT32),
    "QLinearMatMul": _matmul(3, typed_by=7),
    "Gemm": _gemm,
    "com.microsoft::MultiHeadAttention": _attention,
    "com.microsoft::MatMulIntegerToFloat": _matmul(1, DataType.FLOAT),
}
