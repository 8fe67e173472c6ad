"""What a budget is counted in, while units go: MACs, parameters or milliseconds.

Each item is the product of the axes that it lies on: the MACs of a node, the numbers of a weight,
the time of a kernel. Half of one axis is half of the item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

import numpy as np

from onnxslim import ir
from onnxslim.analyses.attribution import attribute, name_by_outputs, node_id
from onnxslim.analyses.axes import AxisMap, Group
from onnxslim.analyses.shapes import one_feed
from onnxslim.errors import OptionError
from onnxslim.ir import Array, Model, Node
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.kernels import kernel_times

Currency = Literal["MACs", "parameters", "latency"]


@dataclass(frozen=True)
class Item:
    """An amount that is proportional to how much stays of each of some axes (of classes)."""

    amount: float
    axes: tuple[Array, ...]


@dataclass(frozen=True)
class Amounts:
    """The items of a model, and what does not change (`fixed`)."""

    currency: Currency
    items: tuple[Item, ...]
    fixed: float = 0.0

    def total(self, removed: Array) -> float:
        """All that is left without what is removed (a flag per class)."""
        return self.fixed + self.of(range(len(self.items)), removed)

    def of(self, items: Sequence[int] | range, removed: Array) -> float:
        """What is left of some items."""
        kept = (self.items[at] for at in items)
        return sum(
            item.amount * prod(1.0 - float(removed[axis].mean()) for axis in item.axes)
            for item in kept
        )

    def touched(self, group: Group) -> list[int]:
        """The items that a group's units take part in."""
        first = group.units[0].tolist()
        return sorted({at for found in first for at in self._touching.get(found, ())})

    @cached_property
    def _touching(self) -> Mapping[int, list[int]]:
        found: dict[int, list[int]] = {}
        for at, item in enumerate(self.items):
            for kind in np.unique(np.concatenate([np.zeros(0, np.int64), *item.axes])).tolist():
                found.setdefault(kind, []).append(at)
        return found


def macs(axes: AxisMap, counts: Mapping[Node, int]) -> Amounts:
    """Multiply-accumulates."""
    known = {work.node for work in axes.trace.work}
    items = (_item(axes, counts.get(w.node, 0), w.axes) for w in axes.trace.work)
    fixed = sum(n for node, n in counts.items() if node not in known)
    return Amounts("MACs", tuple(items), fixed)


def parameters(axes: AxisMap, model: Model) -> Amounts:
    """Numbers in initializers."""
    items: list[Item] = []
    fixed = 0.0
    for value in model.graph.initializers.values():
        tensor = ir.constant(value)
        size = 0 if tensor is None else int(tensor.size)
        own = [ids for ids in axes.trace.axes.get(value, ()) if ids is not None]
        if own:
            items.append(_item(axes, size, own))
        else:
            fixed += size
    return Amounts("parameters", tuple(items), fixed)


def milliseconds(axes: AxisMap, model: Model, env: Environment) -> Amounts:
    """Measured time of kernels here: that of a layer with its axes, that of what follows it with
    the axis that it makes.

    Raises:
        OptionError: the target is not this machine, or the profile tells no kernels apart.
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """
    if not env.target.here:
        raise OptionError(
            f"prune: latency is measured, and '{env.target.name}' is not the runtime of this "
            "machine; give ratio or params instead"
        )
    named = ir.snapshot(model)
    name_by_outputs(named)
    kernels = kernel_times(named, one_feed(model, env), env.threads)
    if not kernels:
        raise OptionError("prune: the times of the kernels cannot be told apart; give ratio")
    work = {node_id(w.node): w.axes for w in axes.trace.work}
    makes = {node_id(layer.node): layer.rows for layer in axes.trace.layers}
    operators = {node_id(w.node): ir.op(w.node) for w in axes.trace.work}
    found = attribute(kernels, named, operators)
    items = [_item(axes, found.own.get(name, 0.0), own) for name, own in work.items()]
    for name, rows in makes.items():
        after = found.after.get(name, 0.0) + found.converting.get(name, 0.0)
        if rows is not None and after:
            items.append(_item(axes, after, (rows,)))
    fixed = sum(kernel.ms for kernel in kernels) - sum(item.amount for item in items)
    return Amounts("latency", tuple(items), max(fixed, 0.0))


def _item(axes: AxisMap, amount: float, own: Sequence[Array]) -> Item:
    return Item(float(amount), tuple(axes.classes(ids) for ids in own))
