"""The proof of a cut: it computes what the masked original does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes import AxisMap
from onnxslim.analyses.shapes import one_feed
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.prune.mask import mask
from onnxslim.passes.prune.reorder import reorder
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import open_session

TOLERANCE = 1e-5
"""Of the largest value of an output: what float32 sums of a few layers leave."""
REORDERINGS = 3
MARGIN = 4.0
"""How far beyond the greatest of REORDERINGS differences another reordering may fall."""


def differs(twin: Model, cut: Model, axes: AxisMap, removed: Array, env: Environment) -> str:
    """Why the cut model is not the masked one, on one sample; empty where it is.

    `twin` is a snapshot from before the cut and is masked here. A difference beyond TOLERANCE is
    held against what summing in another order does to the masked model itself.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """
    mask(Editor(twin), axes, removed)
    feed = one_feed(twin, env)
    wanted = open_session(twin, threads=env.threads).run(feed)
    try:
        found = open_session(cut, threads=env.threads).run(feed)
    except RuntimeUnavailable as error:
        return f"the cut model does not run: {error}"
    for name, value in wanted.items():
        if _is_real(value) and value.shape != found[name].shape:
            return f"output '{name}' became {found[name].shape} instead of {value.shape}"
    gaps = relative_gaps(wanted, found)
    if max(gaps.values(), default=0.0) <= TOLERANCE:
        return ""
    allowed = noise(twin, feed, wanted, threads=env.threads)
    for name, gap in gaps.items():
        if not gap <= max(TOLERANCE, MARGIN * allowed[name]):
            return (
                f"output '{name}' is {gap:.3g} of its largest value away from that of the masked "
                f"original, which rounding changes by {allowed[name]:.3g}"
            )
    return ""


def noise(
    model: Model,
    feed: Feed,
    outputs: Mapping[str, Array],
    extra_outputs: Sequence[str] = (),
    threads: int = 1,
) -> dict[str, float]:
    """By output, the greatest relative gap between a model and itself summing in another order.

    `outputs` are the model's for this feed, those of inner values that are named included.
    """
    worst: dict[str, float] = {}
    for seed in range(REORDERINGS):
        other = ir.snapshot(model)
        reorder(other, seed)
        session = open_session(other, extra_outputs=extra_outputs, threads=threads)
        gaps = relative_gaps(outputs, session.run(feed))
        worst = {name: max(gap, worst.get(name, 0.0)) for name, gap in gaps.items()}
    return worst


def relative_gaps(wanted: Mapping[str, Array], found: Mapping[str, Array]) -> dict[str, float]:
    """By real output of equal shape, the greatest difference over the largest value wanted.

    Infinite where one is finite and the other is not.
    """
    return {
        name: _gap(value.astype(np.float64), found[name].astype(np.float64))
        for name, value in wanted.items()
        if _is_real(value) and value.size
    }


def _is_real(value: object) -> bool:
    return getattr(value, "dtype", np.dtype(object)).kind == "f"


def _gap(wanted: Array, found: Array) -> float:
    finite = np.isfinite(wanted)
    if wanted.shape != found.shape or not np.array_equal(finite, np.isfinite(found)):
        return np.inf
    if not finite.any():
        return 0.0
    apart = np.abs(wanted[finite] - found[finite]).max()
    return float(apart / max(np.abs(wanted[finite]).max(), np.finfo(np.float32).tiny))
