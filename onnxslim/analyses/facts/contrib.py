"""ONNX Runtime's own operators (domain com.microsoft) that exporters and optimizers write."""

from __future__ import annotations

from onnxslim.analyses.facts.dims import exact, multiply
from onnxslim.analyses.facts.fact import UNKNOWN, Fact, Rules, Site


def _same(site: Site) -> Fact:
    return Fact(site.dtype(), site.shape())


def _skip_norm(site: Site) -> list[Fact]:
    """The fourth output is the sum that is normalized."""
    return [_same(site), UNKNOWN, UNKNOWN, _same(site)]


def _attention(site: Site) -> Fact | None:
    """Input [B, T, C] and one weight [C, 3 * V] of query, key and value: [B, T, V]."""
    shape, weight = site.shape(0), site.shape(1)
    if shape is None or weight is None or site.attr("qkv_hidden_sizes"):
        return None
    third = exact(weight[-1], 3)
    return None if third is None else Fact(site.dtype(), (*shape[:-1], third))


def _multi_head(site: Site) -> Fact | None:
    """Query [B, T, C] and value [B, S, V]: [B, T, V]."""
    query, value = site.shape(0), site.shape(2)
    if query is None or value is None or len(query) != 3 or len(value) != 3:
        return None
    return Fact(site.dtype(), (*query[:-1], value[-1]))


def _grouped_query(site: Site) -> Fact | None:
    """The output is like the query; packed, [B, T, (H + 2 G) D] gives [B, T, H D]."""
    if site.has(1) and site.has(2):
        return _same(site)
    shape = site.shape(0)
    heads, shared = (int(site.attr(name, 0)) for name in ("num_heads", "kv_num_heads"))
    size = exact(shape[-1], heads + 2 * shared) if shape is not None and heads else None
    return (
        None
        if size is None or shape is None
        else Fact(site.dtype(), (*shape[:-1], multiply(size, heads)))
    )


_MS = "com.microsoft::"
RULES: Rules = {
    **{
        _MS + name: _same
        for name in ("BiasGelu", "FastGelu", "Gelu", "QuickGelu", "RotaryEmbedding")
    },
    f"{_MS}SkipLayerNormalization": _skip_norm,
    f"{_MS}SkipSimplifiedLayerNormalization": _skip_norm,
    f"{_MS}Attention": _attention,
    f"{_MS}MultiHeadAttention": _multi_head,
    f"{_MS}GroupQueryAttention": _grouped_query,
}
