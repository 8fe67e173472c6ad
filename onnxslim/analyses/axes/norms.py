"""Normalizations, pools and reductions.

Where a statistic is taken over an axis, removing positions changes it, so that they stay unless the
model's width may shrink: then it is taken over what stays. A plain sum loses nothing but zeros.
Channels that are normalized one by one, and whole groups, can go.
"""

from __future__ import annotations

from onnxslim.analyses.axes.atoms import Axis
from onnxslim.analyses.axes.elementwise import same
from onnxslim.analyses.axes.site import STATISTIC, Rules, Site, Unfollowed

_WINDOW = "a window slides along it"


def _batchnorm(site: Site) -> None:
    axes = site.axes(0)
    for index in range(1, 5):
        site.tie(axes[1], site.axes(index)[0])
    site.set(0, axes)


def _instance(site: Site) -> None:
    axes = site.axes(0)
    for axis in axes[2:]:
        site.freeze(axis, STATISTIC)
    site.tie(axes[1], site.axes(1)[0])
    site.tie(axes[1], site.axes(2)[0])
    site.set(0, axes)


def _layer_norm(site: Site) -> None:
    """Normalized from `axis` to the last."""
    axes = site.axes(0)
    first = int(site.attr("axis", -1)) % len(axes)
    for axis in axes[first:-1]:
        site.freeze(axis, STATISTIC)
    _normalized(site, axes, (0,))
    for value in site.node.outputs[1:]:
        if value.uses() or value.is_graph_output():
            for axis in axes:
                site.freeze(axis, "the statistics are read too")
    site.set(0, axes)


def _skip_layer_norm(site: Site) -> None:
    """x, skip, and 1-D gamma, beta, bias; the fourth output is the sum of x, skip and bias."""
    axes = site.axes(0)
    _normalized(site, axes, (0, 3))
    site.set(0, axes)
    site.set(3, axes)


def _normalized(site: Site, axes: tuple[Axis, ...], makes: tuple[int, ...]) -> None:
    """The statistic is over the last axis; all other inputs are added or multiplied."""
    reads = [(0, len(axes) - 1)]
    for index in range(1, len(site.node.inputs)):
        if site.has(index):
            other, dims = site.axes(index), site.dims(index)
            for one, two, size in zip(
                reversed(axes), reversed(other), reversed(dims), strict=False
            ):
                if size != 1:
                    site.tie(one, two)
            if dims and dims[-1] != 1:
                reads.append((index, len(other) - 1))
    site.statistic(axes[-1], reads, makes)


def _group_norm(site: Site) -> None:
    axes, size = site.axes(0), site.dims(0)[1]
    groups = int(site.attr("num_groups", 1))
    for axis in axes[2:]:
        site.freeze(axis, STATISTIC)
    if not isinstance(size, int) or size % groups:
        raise Unfollowed("the sizes of its groups are not known")
    group = site.trace.atoms.fresh(groups)
    site.product(axes[1], (groups, size // groups), (group, None))
    for index in (1, 2):
        one = site.axes(index)[0]
        site.tie(group if site.dims(index)[0] == groups else axes[1], one)
    site.counted("num_groups", group)
    site.set(0, axes)


def _along(site: Site) -> None:
    """One axis is taken as a whole; the others are treated position by position."""
    axes = site.axes(0)
    given = site.ints(1) if site.op == "CumSum" else [int(site.attr("axis", -1))]
    if given is None:
        raise Unfollowed("its axis varies")
    first = given[0] % len(axes)
    last = first + 1
    if site.op in ("Softmax", "LogSoftmax", "Hardmax") and site.opset() < 13:
        first, last = int(site.attr("axis", 1)) % len(axes), len(axes)
    for axis in axes[first:last]:
        site.freeze(axis, f"{site.op} takes the axis as a whole")
    site.set(0, axes)


def _topk(site: Site) -> None:
    axes = list(site.axes(0))
    axis = int(site.attr("axis", -1)) % len(axes)
    site.freeze(axes[axis], "TopK takes the axis as a whole")
    axes[axis] = None
    site.set(0, axes)
    site.set(1, axes)


def _whole(site: Site) -> None:
    """All but batch and channel is normalized or pooled."""
    axes = site.axes(0)
    for axis in axes[2:]:
        site.freeze(axis, _WINDOW)
    made = [*axes[:2], *[None] * (len(axes) - 2)]
    for index in range(len(site.node.outputs)):
        site.set(index, made)


def _mean_variance(site: Site) -> None:
    axes = site.axes(0)
    for axis in site.attr("axes", (0, 2, 3)):
        site.freeze(axes[int(axis)], STATISTIC)
    site.set(0, axes)


def _local_response(site: Site) -> None:
    site.freeze(site.axes(0)[1], STATISTIC)
    site.set(0, site.axes(0))


def _reduce(site: Site) -> None:
    axes = site.axes(0)
    over = _reduced(site, len(axes))
    if over is None:
        same(site)
        return
    sums = site.op in ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
    for axis in sorted(over):
        if sums:
            site.sink(0, axis)
        elif site.op == "ReduceMean":
            site.statistic(axes[axis], [(0, axis)], ())
        else:
            site.freeze(axes[axis], f"{site.op} over this axis depends on its size or on all of it")
    if site.attr("keepdims", 1):
        site.set(0, [None if i in over else axis for i, axis in enumerate(axes)])
    else:
        site.set(0, [axis for i, axis in enumerate(axes) if i not in over])


def _reduced(site: Site, rank: int) -> set[int] | None:
    """The axes that are reduced; None for a Reduce that does nothing."""
    if site.op in ("ArgMax", "ArgMin"):
        return {int(site.attr("axis", 0)) % rank}
    given = site.attr("axes")
    if given is None and site.has(1):
        given = site.ints(1)
        if given is None:
            raise Unfollowed("its axes vary")
    if not given:
        return None if site.attr("noop_with_empty_axes", 0) else set(range(rank))
    return {int(axis) % rank for axis in given}


_REDUCE = """
    ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare
    ReduceLogSum ReduceLogSumExp ArgMax ArgMin
"""
_POOL = """
    AveragePool MaxPool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool
"""

RULES: Rules = {
    "BatchNormalization": _batchnorm,
    "InstanceNormalization": _instance,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _layer_norm,
    "SimplifiedLayerNormalization": _layer_norm,
    "com.microsoft::SimplifiedLayerNormalization": _layer_norm,
    "com.microsoft::SkipLayerNormalization": _skip_layer_norm,
    "com.microsoft::SkipSimplifiedLayerNormalization": _skip_layer_norm,
    "MeanVarianceNormalization": _mean_variance,
    "LRN": _local_response,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "CumSum"), _along),
    "TopK": _topk,
    **dict.fromkeys(_REDUCE.split(), _reduce),
    **dict.fromkeys(_POOL.split(), _whole),
}
