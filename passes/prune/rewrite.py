"""What of a node must be rewritten when axes around it shrink: a table by operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes import AxisMap
from onnxslim.analyses.axes.atoms import Repeated
from onnxslim.analyses.axes.movement import slice_arguments, slice_places
from onnxslim.analyses.axes.site import Site
from onnxslim.analyses.facts import Dim
from onnxslim.ir import Array, Attr, AttributeType, Editor, Node, Value


@dataclass(frozen=True)
class Removal:
    """Which classes go."""

    axes: AxisMap
    removed: Array  # bool [classes]

    def keep(self, ids: Array) -> Array:
        """Flags of the positions that stay."""
        return ~self.removed[self.axes.solved.root[ids]]

    def kept(self, ids: Array) -> int:
        """How many positions stay."""
        return int(self.keep(ids).sum())

    def loses(self, ids: Array) -> bool:
        """Whether a position goes."""
        return self.kept(ids) < ids.size

    def of(self, value: Value | None) -> tuple[Array | None, ...]:
        """The atoms along the axes of a value."""
        return () if value is None else self.axes.trace.axes.get(value, ())

    def shrinks(self, value: Value | None) -> bool:
        """Whether an axis of the value loses positions."""
        return any(ids is not None and self.loses(ids) for ids in self.of(value))

    def touches(self, node: Node) -> bool:
        """Whether something that the node reads or computes loses positions."""
        return any(self.shrinks(value) for value in (*node.inputs, *node.outputs, *_measured(node)))


def _measured(node: Node) -> list[Value | None]:
    """The values whose shapes a node is told by Shape."""
    makers = (value.producer() for value in node.inputs if value is not None)
    return [maker.inputs[0] for maker in makers if maker is not None and ir.op(maker) == "Shape"]


_END = 2**62

Rewrite = Callable[[Removal, Editor, Node], None]


def _target(index: int, neutral: int) -> Rewrite:
    """The input that holds the output's shape. `neutral` leaves an axis as the input has it."""

    def rewrite(removal: Removal, editor: Editor, node: Node) -> None:
        if index < len(node.inputs) and node.inputs[index] is not None:
            _set_shape(removal, editor, node, index, neutral)

    return rewrite


def _set_shape(removal: Removal, editor: Editor, node: Node, index: int, neutral: int = 0) -> None:
    """Write the sizes that are the same in every run; leave computed what varies."""
    facts = removal.axes.trace.facts
    dims = facts.shape(node.outputs[0])
    given = node.inputs[index]
    if dims is None or given is None:
        return
    sizes = _sizes(removal, node.outputs[0], dims)
    entries = sizes
    if ir.op(node) == "Expand" or (
        ir.op(node) == "Reshape" and not ir.attribute(node, "allowzero")
    ):
        source = facts.shape(node.inputs[0]) or ()
        entries = _copied(sizes, dims, source, neutral, aligned=ir.op(node) == "Expand")
    if ir.op(node) == "Reshape":
        entries = _open(entries, removal.of(node.outputs[0]))
    scope = editor.scope_of(node)
    known = [0 if n is None else n for n in entries]
    target = editor.initializer(scope, f"{given.name}_cut", np.array(known, np.int64))
    if None in entries:
        target = _mixed(editor, node, given, target, [n is not None for n in entries])
    node.replace_input_with(index, target)


def _sizes(removal: Removal, value: Value, dims: Sequence[Dim]) -> list[int | None]:
    kinds = removal.of(value)
    return [
        None
        if isinstance(ids, Repeated)
        else removal.kept(ids)
        if ids is not None
        else size
        if isinstance(size, int)
        else None
        for ids, size in zip(kinds, dims, strict=True)
    ]


def _copied(
    sizes: Sequence[int | None],
    dims: Sequence[Dim],
    source: Sequence[Dim],
    neutral: int,
    aligned: bool,
) -> list[int | None]:
    """Sizes that vary are copied from the same axis of the input where it is of that size."""
    shift = len(dims) - len(source) if aligned else 0
    return [
        neutral
        if size is None and 0 <= i - shift < len(source) and source[i - shift] == dims[i]
        else size
        for i, size in enumerate(sizes)
    ]


def _open(entries: Sequence[int | None], kinds: Sequence[Array | None]) -> list[int | None]:
    """One size that varies may be left open: that of an axis that repeats, or else the only one."""
    several = entries.count(None) > 1
    return [
        -1 if size is None and (not several or isinstance(ids, Repeated)) else size
        for size, ids in zip(entries, kinds, strict=True)
    ]


def _mixed(editor: Editor, node: Node, given: Value, target: Value, fixed: list[bool]) -> Value:
    """Elements of the computed shape, but where they are fixed."""
    flags = editor.initializer(editor.scope_of(node), f"{given.name}_fixed", np.array(fixed))
    where = editor.node("Where", [flags, target, given], outputs=[f"{given.name}_cut"], like=node)
    editor.insert_before(node, [where])
    return where.outputs[0]


def _resized(removal: Removal, editor: Editor, node: Node) -> None:
    """Sizes are given for all axes, or for those named, which never are those that shrink."""
    if len(node.inputs) > 3 and node.inputs[3] is not None and not ir.attribute(node, "axes"):
        _set_shape(removal, editor, node, 3)


def _split(removal: Removal, editor: Editor, node: Node) -> None:
    """Sizes of the parts."""
    site = Site(node, removal.axes.trace)
    axes = removal.of(node.inputs[0])
    axis = int(ir.attribute(node, "axis", 0)) % len(axes)
    if axes[axis] is None:
        return
    parts = [removal.of(value)[axis] for value in node.outputs]
    widths = [site.out_dims(i)[axis] for i in range(len(parts))]
    sizes = [
        removal.kept(ids) if ids is not None else int(str(width))
        for ids, width in zip(parts, widths, strict=True)
    ]
    node.attributes.pop("num_outputs", None)
    if site.opset() < 13:
        node.attributes.add(Attr("split", AttributeType.INTS, tuple(sizes)))
        return
    value = editor.initializer(editor.scope_of(node), "split_cut", np.array(sizes, np.int64))
    node.resize_inputs(2)
    node.replace_input_with(1, value)


def _slice(removal: Removal, editor: Editor, node: Node) -> None:
    """Other starts and ends; an axis whose positions are no range any more is gathered before."""
    site = Site(node, removal.axes.trace)
    kinds = removal.of(node.inputs[0])
    named = slice_arguments(site)
    assert named is not None, "an axis that shrinks is sliced at known places"
    for axis, ids in enumerate(kinds):
        if ids is None or axis not in named or not removal.loses(ids):
            continue
        places = slice_places(site, axis, int(ids.size))
        assert places is not None
        moved = _moved(removal.keep(ids), places)
        first, last = int(moved[0]), int(moved[-1])
        if np.array_equal(moved, np.arange(first, last + 1)):
            named[axis] = (first, last + 1, 1)
        else:
            named[axis] = (0, _END, 1)
            _gather_before(editor, node, axis, moved)
    _write_slice(editor, node, site.opset(), named)


def _moved(keep: Array, places: Array) -> Array:
    """Where the positions that stay lie afterwards."""
    after = np.cumsum(keep) - 1
    return after[places[keep[places]]]


def _gather_before(editor: Editor, node: Node, axis: int, places: Array) -> None:
    value = node.inputs[0]
    indices = editor.initializer(editor.scope_of(node), "slice_cut", places.astype(np.int64))
    gather = editor.node(
        "Gather", [value, indices], outputs=["slice_cut"], attributes={"axis": axis}, like=node
    )
    editor.insert_before(node, [gather])
    node.replace_input_with(0, gather.outputs[0])


def _write_slice(
    editor: Editor, node: Node, opset: int, named: dict[int, tuple[int, int, int]]
) -> None:
    axes = sorted(named)
    starts, ends, steps = zip(*(named[axis] for axis in axes), strict=True)
    if opset < 10:
        old = {"starts": starts, "ends": ends, "axes": tuple(axes)}
        for name, values in old.items():
            node.attributes.add(Attr(name, AttributeType.INTS, values))
        return
    scope = editor.scope_of(node)
    node.resize_inputs(5)
    for index, numbers in enumerate((starts, ends, axes, steps), start=1):
        content = np.array(numbers, np.int64)
        node.replace_input_with(index, editor.initializer(scope, "slice_cut", content))


def _gather(removal: Removal, editor: Editor, node: Node) -> None:
    """Constant indices along an axis that shrinks."""
    kinds = removal.of(node.inputs[0])
    axis = int(ir.attribute(node, "axis", 0)) % len(kinds)
    ids, indices = kinds[axis], ir.array(node.inputs[1])
    if ids is None or indices is None or not removal.loses(ids):
        return
    keep = removal.keep(ids)
    places = np.arange(ids.size)[indices.astype(np.int64)]
    after = np.cumsum(keep) - 1
    moved = after[places] if indices.ndim == 0 else _moved(keep, np.atleast_1d(places))
    content = np.asarray(moved, indices.dtype)
    value = editor.initializer(editor.scope_of(node), "gather_cut", content)
    node.replace_input_with(1, value)


REWRITES: dict[str, Rewrite] = {
    "Reshape": _target(1, neutral=0),
    "Expand": _target(1, neutral=1),
    "Resize": _resized,
    "ConstantOfShape": _target(0, neutral=0),
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
}
