"""The mechanical cut: removed atoms leave every tensor, attribute and shape that holds them."""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes import AxisMap
from onnxslim.analyses.axes.atoms import Repeated
from onnxslim.analyses.axes.solve import consistent
from onnxslim.errors import EditError
from onnxslim.ir import Array, Editor, Value
from onnxslim.passes.prune.rewrite import REWRITES, Removal


def cut(editor: Editor, axes: AxisMap, removed: Array) -> None:
    """Remove classes of atoms from the model that was analysed. Everything is checked first.

    `removed` has a flag per class, closed under what `axes.groups` says goes together. What stays
    of each axis keeps its order.

    Raises:
        EditError: an axis would be empty, or something that must stay would go.
    """
    removal = Removal(axes, removed)
    _check(removal)
    constants = {
        value: content
        for value in axes.trace.axes
        if (content := _content(removal, value)) is not None
    }
    for node in list(editor.model.graph):
        rewrite = REWRITES.get(ir.op(node))
        if rewrite is not None and removal.touches(node):
            rewrite(removal, editor, node)
    for fact in axes.trace.counted:
        kept = [int(np.prod([removal.kept(a) for a in element])) for element in fact.elements]
        if any(removal.loses(a) for element in fact.elements for a in element):
            fact.node.attributes.add(_ints(fact.attribute, kept, fact.single))
    for value, content in constants.items():
        editor.replace_initializer(value, content)
    for value in axes.trace.axes:
        _redeclare(removal, value)


def _check(removal: Removal) -> None:
    axes = removal.axes
    if (removal.removed & axes.solved.frozen).any():
        first = int(np.flatnonzero(removal.removed & axes.solved.frozen)[0])
        raise EditError(f"class {first} of atoms must stay: {axes.solved.reasons[first].reason}")
    for product in axes.solved.products:
        if not consistent(product, removal.removed):
            raise EditError("what is removed does not fit a Reshape: positions without their row")
    for value, kinds in axes.trace.axes.items():
        for ids in kinds:
            if ids is not None and removal.kept(ids) == 0:
                raise EditError(f"nothing would be left of an axis of '{value.name}'")


def _content(removal: Removal, value: Value) -> Array | None:
    """What a constant becomes; None where it stays, or is but a copy of another."""
    producer = value.producer()
    if producer is not None and ir.op(producer) != "Constant":
        return None
    kinds = removal.axes.trace.axes[value]
    if not any(ids is not None and removal.loses(ids) for ids in kinds):
        return None
    content = ir.array(value)
    if content is None:
        return None
    for axis, ids in enumerate(kinds):
        if ids is not None and removal.loses(ids):
            content = np.compress(removal.keep(ids), content, axis=axis)
    return content


def _ints(name: str, values: list[int], single: bool) -> ir.Attr:
    if single:
        return ir.Attr(name, ir.AttributeType.INT, values[0])
    return ir.Attr(name, ir.AttributeType.INTS, tuple(values))


def _redeclare(removal: Removal, value: Value) -> None:
    """The shape that a value was declared with, where that is not so any more."""
    kinds = removal.axes.trace.axes[value]
    if value.shape is None or ir.constant(value) is not None or len(value.shape) != len(kinds):
        return
    dims = list(value.shape)
    for axis, ids in enumerate(kinds):
        if ids is not None and removal.loses(ids) and not isinstance(ids, Repeated):
            dims[axis] = removal.kept(ids)
    value.shape = ir.Shape(dims)
