"""Attention as one operator: heads can go, their own dimensions stay (the scale depends on them).

An axis of H heads of d dimensions is a product; with grouped queries the H query heads are
(key head, query of that key head).
"""

from __future__ import annotations

from onnxslim.analyses.axes.atoms import Axis
from onnxslim.analyses.axes.site import Rules, Site, Unfollowed

_SOFTMAX = "attention takes the axis as a whole"


def _heads(site: Site, index: int, count: int, head: Axis) -> None:
    """The last axis of an input is heads and their dimensions."""
    axis, size = site.axes(index)[-1], site.dims(index)[-1]
    if not isinstance(size, int) or count < 1 or size % count:
        raise Unfollowed("the size of its heads is not known")
    if axis is None:
        site.freeze(head, "its input never changes")
    else:
        site.product(axis, (count, size // count), (head, None))


def _freeze_all(site: Site, first: int, last: int) -> None:
    for index in range(first, min(last, len(site.node.inputs))):
        if site.has(index):
            for axis in site.axes(index):
                site.freeze(axis, _SOFTMAX)


def _bias(site: Site, index: int, head: Axis) -> None:
    """Added to the scores: [B or 1, H or 1, T, S]."""
    if site.has(index):
        axes = site.axes(index)
        for at, axis in enumerate(axes):
            if len(axes) == 4 and at == 1 and axis is not None:
                site.tie(axis, head)
            else:
                site.freeze(axis, _SOFTMAX)


def _output(site: Site, count: int, head: Axis) -> None:
    dims = site.out_dims()
    size = dims[-1]
    if not isinstance(size, int) or size % count:
        raise Unfollowed("the size of its output is not known")
    site.set(0, [*[None] * (len(dims) - 1), site.merged((count, size // count), (head, None))])


def _packed(site: Site) -> None:
    """com.microsoft Attention: x [B, T, C], one weight [C, q + k + v] and bias."""
    count, x, w = int(site.attr("num_heads", 1)), site.axes(0), site.axes(1)
    if site.has(4) or site.attr("qkv_hidden_sizes") or w[1] is None or w[1].size % (3 * count):
        raise Unfollowed("it has a past, or parts of unequal size")
    site.tie(x[2], w[0])
    site.sink(0, 2)
    head = site.fresh(count)
    size = w[1].size // 3
    for part in range(3):
        ids = w[1][part * size : (part + 1) * size]
        site.product(ids, (count, size // count), (head, None))
    if site.has(2):
        site.tie(w[1], site.axes(2)[0])
    site.counted("num_heads", head)
    site.freeze(x[1], _SOFTMAX)
    _freeze_all(site, 3, 4)
    _bias(site, 5, head)
    site.work(w[0], w[1])
    site.layer(1, w[1], x[2])
    _output(site, count, head)


def _multi_head(site: Site) -> None:
    """com.microsoft MultiHeadAttention: q, k and v [B, T, H * d], biases in one vector."""
    count = int(site.attr("num_heads", 1))
    if len(site.node.inputs) > 6 and any(site.has(i) for i in range(6, len(site.node.inputs))):
        raise Unfollowed("it has a past")
    if any(not site.has(i) or len(site.axes(i)) != 3 for i in (1, 2)):
        raise Unfollowed("queries, keys and values are packed")
    head = site.fresh(count)
    for index in range(3):
        _heads(site, index, count, head)
        site.freeze(site.axes(index)[1], _SOFTMAX)
    if site.has(3):
        _packed_bias(site, count, head)
    site.counted("num_heads", head)
    _freeze_all(site, 4, 5)
    _bias(site, 5, head)
    _output(site, count, head)
    for index in (1, 2):
        site.set(index, [None, head, None, None])


def _packed_bias(site: Site, count: int, head: Axis) -> None:
    ids, at = site.axes(3)[0], 0
    for index in range(3):
        size = site.dims(index)[-1]
        if ids is None or not isinstance(size, int):
            raise Unfollowed("the size of its bias is not known")
        site.product(ids[at : at + size], (count, size // count), (head, None))
        at += size


def _grouped(site: Site) -> None:
    """com.microsoft GroupQueryAttention: q [B, T, H * d], k and v [B, T, KV * d]."""
    count, keys = int(site.attr("num_heads", 1)), int(site.attr("kv_num_heads", 1))
    if not site.has(1) or not site.has(2) or count % keys:
        raise Unfollowed("queries, keys and values are packed")
    key, query = site.fresh(keys), site.fresh(count // keys)
    head = site.merged((keys, count // keys), (key, query))
    _heads(site, 0, count, head)
    for index in (1, 2):
        _heads(site, index, keys, key)
    for index in (3, 4):
        if site.has(index):
            site.tie(key, site.axes(index)[1])
    _freeze_all(site, 5, 9)
    if any(site.has(i) for i in range(9, len(site.node.inputs))):
        raise Unfollowed("it has inputs beyond its caches")
    site.counted("num_heads", key, query)
    site.counted("kv_num_heads", key)
    _output(site, count, head)
    for index in (1, 2):
        site.set(index, [None, key, None, None])


def _standard(site: Site) -> None:
    """ONNX Attention: q, k, v [B, H, T, d], or [B, T, H * d] with the numbers of heads."""
    flat = len(site.axes(0)) == 3
    sizes = (site.attr("q_num_heads"), site.attr("kv_num_heads"))
    if not flat:
        sizes = (site.dims(0)[1], site.dims(1)[1])
    count, keys = sizes
    if not isinstance(count, int) or not isinstance(keys, int) or count % keys:
        raise Unfollowed("the number of its heads is not known")
    key, query = site.fresh(keys), site.fresh(count // keys)
    head = site.merged((keys, count // keys), (key, query)) if count > 1 else None
    for index, heads, number in ((0, head, count), (1, key, keys), (2, key, keys)):
        if flat:
            _heads(site, index, number, heads)
        else:
            site.tie(site.axes(index)[1], heads)
            site.freeze(site.axes(index)[3], "the scale depends on the size of a head")
            site.freeze(site.axes(index)[2], _SOFTMAX)
    _bias(site, 3, head)
    for index in (4, 5):
        if site.has(index):
            site.tie(site.axes(index)[1], key)
    if flat:
        site.counted("q_num_heads", key, query)
        site.counted("kv_num_heads", key)
        _output(site, count, head)
    else:
        site.set(0, [None, head, None, None])
    for index in (1, 2):
        site.set(index, [None, key, None, None])
    site.set(3, [None, head, None, None])


def _rotary(site: Site) -> None:
    """Rotates the dimensions within each head: [B, H, T, d] or [B, T, H * d]."""
    axes = site.axes(0)
    if len(axes) == 4:
        site.freeze(axes[3], "pairs of dimensions are rotated")
    else:
        count = int(site.attr("num_heads", 0))
        head = site.fresh(count) if count > 1 else None
        if head is None:
            site.freeze(axes[-1], "the number of its heads is not known")
        else:
            _heads(site, 0, count, head)
            site.counted("num_heads", head)
    _freeze_all(site, 1, 4)
    site.set(0, axes)


RULES: Rules = {
    "com.microsoft::Attention": _packed,
    "com.microsoft::MultiHeadAttention": _multi_head,
    "com.microsoft::GroupQueryAttention": _grouped,
    "Attention": _standard,
    "com.microsoft::RotaryEmbedding": _rotary,
    "RotaryEmbedding": _rotary,
}
