"""Operators that move positions: their atoms are moved along."""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes.atoms import Axis, Repeated
from onnxslim.analyses.axes.site import Rules, Site, Unfollowed
from onnxslim.ir import Array

_READ = "its size is read by Shape"


def _transpose(site: Site) -> None:
    axes = site.axes(0)
    order = site.attr("perm") or range(len(axes) - 1, -1, -1)
    site.set(0, [axes[i] for i in order])


def _concat(site: Site) -> None:
    rank = len(site.axes(0))
    along = int(site.attr("axis", 0)) % rank
    operands = range(len(site.node.inputs))
    made: list[Axis] = []
    for axis in range(rank):
        if axis == along:
            made.append(_joined(site, along))
            continue
        result = site.axes(0)[axis]
        for index in operands[1:]:
            result = site.tie(result, site.axes(index)[axis])
        made.append(result)
    site.set(0, made)


def _joined(site: Site, axis: int) -> Axis:
    """The atoms of all operands in a row; parts that never shrink get atoms that stay."""
    parts = [(site.axes(i)[axis], site.dims(i)[axis]) for i in range(len(site.node.inputs))]
    if all(ids is None for ids, _ in parts):
        return None
    if any(not isinstance(size, int) for _, size in parts):
        for ids, _ in parts:
            site.freeze(ids, "it is joined with something of unknown size")
        return None
    made: list[Array] = []
    for ids, size in parts:
        if ids is None:
            ids = site.trace.atoms.fresh(int(str(size)))
            site.freeze(ids, "a part of the joined axis never changes")
        made.append(ids)
    return np.concatenate(made)


def _split(site: Site) -> None:
    axes = list(site.axes(0))
    axis = int(site.attr("axis", 0)) % len(axes)
    ids, at = axes[axis], 0
    for index in range(len(site.node.outputs)):
        part: Axis = None
        if ids is not None:
            size = site.out_dims(index)[axis]
            if not isinstance(size, int):
                raise Unfollowed("the sizes of its parts vary")
            part, at = ids[at : at + size], at + size
        site.set(index, [*axes[:axis], part, *axes[axis + 1 :]])


def _slice(site: Site) -> None:
    axes = list(site.axes(0))
    for axis, ids in enumerate(axes):
        if ids is not None:
            places = slice_places(site, axis, int(ids.size))
            if places is None:
                raise Unfollowed("where it begins and ends varies")
            axes[axis] = ids[places]
    site.set(0, axes)


def slice_places(site: Site, axis: int, size: int) -> Array | None:
    """The positions that a Slice takes of an axis; None where they vary."""
    named = slice_arguments(site)
    if named is None:
        return None
    start, end, step = named.get(axis, (0, size, 1))
    if step < 0 and end < -size:  # numpy would count it from the end
        return np.arange(size)[slice(start, None, step)]
    return np.arange(size)[slice(start, end, step)]


def slice_arguments(site: Site) -> dict[int, tuple[int, int, int]] | None:
    """Start, end and step along each axis that is named; None where one of them varies."""
    if site.opset() < 10:
        starts, ends = site.attr("starts", ()), site.attr("ends", ())
        axes, steps = site.attr("axes"), None
    else:
        starts, ends, axes, steps = (site.ints(index) for index in (1, 2, 3, 4))
        if (
            starts is None
            or ends is None
            or any(site.has(i) != (a is not None) for i, a in ((3, axes), (4, steps)))
        ):
            return None
    rank = len(site.axes(0))
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    return {
        int(a) % rank: (int(s), int(e), int(t))
        for a, s, e, t in zip(axes, starts, ends, steps, strict=True)
    }


def _gather(site: Site) -> None:
    axes = site.axes(0)
    axis = int(site.attr("axis", 0)) % len(axes)
    ids, indices = axes[axis], ir.array(site.input(1))
    rank = site.trace.facts.rank(site.input(1))
    if rank is None:
        raise Unfollowed("the rank of its indices is not known")
    picked: list[Axis] = [None] * rank
    if indices is not None and ids is not None and indices.ndim == 1:
        picked = [ids[indices.astype(np.int64)]]
    elif indices is not None and ids is not None and indices.ndim == 0:
        site.freeze(ids[[int(indices)]], "a single position of it is used alone")
    else:
        site.freeze(ids, "what is gathered from it varies")
        if indices is None:
            for other in site.axes(1):
                site.freeze(other, "it holds indices")
    site.set(0, [*axes[:axis], *picked, *axes[axis + 1 :]])


def _expand(site: Site) -> None:
    axes, dims, wanted = site.axes(0), site.dims(0), site.out_dims()
    shift = len(wanted) - len(axes)
    made: list[Axis] = []
    for i, size in enumerate(wanted):
        before = dims[i - shift] if i >= shift else 1
        if before != 1:
            made.append(axes[i - shift])
        else:
            made.append(site.fresh(size) if isinstance(size, int) else None)
    site.set(0, made)


def _tile(site: Site) -> None:
    axes, repeats = site.axes(0), site.ints(1)
    if repeats is None:
        raise Unfollowed("how often it repeats varies")
    made: list[Axis] = []
    for ids, times in zip(axes, repeats, strict=True):
        if times != 1:
            site.freeze(ids, "it is repeated")
        made.append(ids if times == 1 else None)
    site.set(0, made)


def _pad(site: Site) -> None:
    axes = list(site.axes(0))
    pads = site.attr("pads") if site.opset() < 11 else None
    contents = pads if pads is not None else site.trace.facts.content(site.input(1))
    named = site.ints(3) if site.has(3) else list(range(len(axes)))
    if contents is None or named is None:
        raise Unfollowed("its pads vary")
    for at, name in enumerate(named):
        axis = name % len(axes)
        if contents[at] != 0 or contents[at + len(named)] != 0:
            site.freeze(axes[axis], "it is padded")
            axes[axis] = None
    site.set(0, axes)


def _resize(site: Site) -> None:
    axes, dims, wanted = list(site.axes(0)), site.dims(0), site.out_dims()
    for i, ids in enumerate(axes):
        if dims[i] != wanted[i] or not isinstance(dims[i], int):
            site.freeze(ids, "it is resized")
            axes[i] = None
    site.set(0, axes)


def _roi_align(site: Site) -> None:
    """Windows of x [N, C, H, W]: rois [R, 4], of the images [R]."""
    x = site.axes(0)
    for axis in (x[0], *x[2:], *site.axes(1), *site.axes(2)):
        site.freeze(axis, "windows are taken of it")
    site.set(0, [None, x[1], None, None])


def _shape(site: Site) -> None:
    """Sizes are read; only those that tell more than the shape of a Reshape or Expand must stay."""
    axes = site.axes(0)
    start = int(site.attr("start", 0))
    end = site.attr("end")
    span = range(len(axes))[start : len(axes) if end is None else int(end)]
    seen: set[ir.Node] = set()
    for use in site.node.outputs[0].uses():
        told = _tells_a_shape(site, use.node, use.idx, seen)
        for place in _read(site, use.node, len(span)):
            axis = axes[span[place]]
            if not told or isinstance(axis, Repeated):
                site.freeze(axis, _READ)
    if site.node.outputs[0].is_graph_output():
        for axis in axes:
            site.freeze(axis, _READ)
    site.set(0, [None])


_TOLD = {("Reshape", 1), ("Expand", 1), ("Resize", 3), ("ConstantOfShape", 0)}
"""Inputs whose elements are written anew when sizes change, if they are the same in every run."""
_CHOICE = frozenset(["Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Identity"])
_ARITHMETIC = frozenset(["Add", "Sub", "Mul", "Div", "Cast", "Floor", "Max", "Min"])


def _tells_a_shape(site: Site, node: ir.Node, index: int, seen: set[ir.Node]) -> bool:
    """Whether sizes that a node reads end as elements of shapes, each by itself or a fixed number.

    `seen` holds the nodes that were asked already: they do.
    """
    op = ir.op(node)
    if (op, index) in _TOLD or node in seen:
        return True
    if op in _ARITHMETIC:
        content = site.trace.facts.content(node.outputs[0])
        if content is None or not all(isinstance(n, int) for n in content):
            return False
    elif op not in _CHOICE or (op in ("Gather", "Slice") and index != 0):
        return False
    seen.add(node)
    result = node.outputs[0]
    told = not result.is_graph_output() and all(
        _tells_a_shape(site, use.node, use.idx, seen) for use in result.uses()
    )
    if not told:
        seen.discard(node)
    return told


def _read(site: Site, reader: ir.Node, count: int) -> list[int]:
    """The elements of a shape that a node reads."""
    if ir.op(reader) == "Gather":
        indices = ir.array(reader.inputs[1])
        if indices is not None:
            return [int(i) for i in np.arange(count)[indices.astype(np.int64)].ravel()]
    if ir.op(reader) == "Slice":
        places = slice_places(Site(reader, site.trace), 0, count)
        if places is not None:
            return [int(i) for i in places]
    return list(range(count))


def _constant_of_shape(site: Site) -> None:
    """The same number everywhere: positions of it can go."""
    site.set(0, [site.fresh(n) if isinstance(n, int) else None for n in site.out_dims()])


def _scatter_elements(site: Site) -> None:
    """Indices and updates lie on the data; along `axis` positions are chosen."""
    data = list(site.axes(0))
    along = int(site.attr("axis", 0)) % len(data)
    for axis in range(len(data)):
        for index in (1, 2):
            other = site.axes(index)[axis]
            if axis == along:
                site.freeze(other, "positions along it are chosen by indices")
            else:
                data[axis] = site.tie(data[axis], other)
    site.freeze(data[along], "positions along it are chosen by indices")
    data[along] = None
    site.set(0, data)


def _nothing(site: Site) -> None:
    """A tensor made of sizes: nothing of it shrinks."""
    for index in range(len(site.node.outputs)):
        site.set(index, [None] * len(site.out_dims(index)))


def _depth_to_space(site: Site) -> None:
    """Channels are (b, b, C) in mode DCR and (C, b, b) in mode CRD."""
    x, size, block = site.axes(0), site.dims(0)[1], int(site.attr("blocksize", 1))
    for axis in x[2:]:
        site.freeze(axis, "it is interleaved")
    if not isinstance(size, int):
        raise Unfollowed("the number of its channels is not known")
    channel: Axis = site.fresh(size // block**2) if x[1] is not None else None
    if site.text("mode", "DCR") == "DCR":
        site.product(x[1], (block, block, size // block**2), (None, None, channel))
    else:
        site.product(x[1], (size // block**2, block, block), (channel, None, None))
    site.set(0, [x[0], channel, None, None])


def _space_to_depth(site: Site) -> None:
    x, size, block = site.axes(0), site.dims(0)[1], int(site.attr("blocksize", 1))
    for axis in x[2:]:
        site.freeze(axis, "it is interleaved")
    if not isinstance(size, int):
        raise Unfollowed("the number of its channels is not known")
    made = site.merged((block, block, size), (None, None, x[1]))
    site.set(0, [x[0], made, None, None])


RULES: Rules = {
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "RoiAlign": _roi_align,
    "Shape": _shape,
    "ConstantOfShape": _constant_of_shape,
    "ScatterElements": _scatter_elements,
    "Range": _nothing,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
