"""Choosing at random what a test prunes, and comparing the cut model with the masked original."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes import AxisMap, axis_map
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.prune.cut import cut
from onnxslim.passes.prune.mask import mask
from onnxslim.passes.prune.rewrite import Removal
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import open_session


def share_of_each(axes: AxisMap, share: float, seed: int = 0) -> Array:
    """Flags of the classes in a share of the units of each group, at least one, never all."""
    rng = np.random.default_rng(seed)
    removed = axes.nothing()
    for group in axes.groups:
        count = min(max(1, round(group.size * share)), group.size - 1)
        for at in rng.permutation(group.size)[:count]:
            removed[group.units[at]] = True
    return removed


def cut_and_masked(
    model: Model, share: float = 0.4, seed: int = 0, *, width: bool = False
) -> tuple[Model, Model] | None:
    """The model cut in place, and the original masked by the same choice; None if nothing goes."""
    masked, axes = ir.snapshot(model), axis_map(model, width=width)
    if not axes.groups:
        return None
    removed = share_of_each(axes, share, seed)
    mask(Editor(masked), axes, removed)
    editor = Editor(model)
    cut(editor, axes, removed)
    editor.remove_dead()
    ir.verify(model)
    return model, masked


def operators_cut(axes: AxisMap, removed: Array, model: Model) -> set[str]:
    """The operators that read or compute something that loses positions, before the cut."""
    removal = Removal(axes, removed)
    return {ir.op(node) for node in model.graph if removal.touches(node)}


def difference(one: Model, other: Model, feeds: Sequence[Feed], scale: Model) -> float:
    """The greatest difference of an output, relative to the largest value of it in `scale`.

    Infinite where shapes, or what is finite, differ.
    """
    worst = 0.0
    sessions = [open_session(model, optimize="none") for model in (one, other, scale)]
    for feed in feeds:
        a, b, c = (session.run(feed) for session in sessions)
        for name in a:
            worst = max(worst, _difference(a[name], b[name], c[name]))
    return worst


def _difference(one: Array, other: Array, scale: Array) -> float:
    if one.shape != other.shape:
        return np.inf
    if one.dtype.kind != "f" or one.size == 0:
        return float((one != other).any()) if one.dtype.kind in "iub" else 0.0
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return np.inf
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(np.abs(one.astype(np.float64) - other), nan=0, posinf=0)
    largest = max(np.nanmax(np.abs(x), where=np.isfinite(x), initial=0) for x in (one, scale))
    return float(apart.max()) / max(float(largest), 1e-30)
