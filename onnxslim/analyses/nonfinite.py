"""Where NaN or infinity first arises in a run."""

from __future__ import annotations

from math import prod

import numpy as np

from onnxslim.analyses.plan import BUDGET
from onnxslim.analyses.seen import observed_shapes
from onnxslim.ir import Array, Model
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import open_session


def is_finite(x: Array) -> bool:
    """Whether a float array holds neither NaN nor infinity."""
    if x.dtype.kind != "f":
        return True
    with np.errstate(invalid="ignore"):  # infinity of both signs
        return bool(np.isfinite(x.sum(dtype=np.float64)) or np.isfinite(x).all())


def first_nonfinite(model: Model, feed: Feed, threads: int = 1, budget: int = BUDGET) -> str | None:
    """The first value of the main graph, in order, that holds NaN or infinity for this sample.

    Memory: about `budget` bytes of watched values at a time.
    """
    for name, array in feed.items():
        if not is_finite(np.asarray(array)):
            return name
    shapes = observed_shapes(model, feed, threads)
    order = {str(v.name): None for node in model.graph for v in node.outputs if v.name}
    for names in _batches([n for n in order if n in shapes], dict(shapes), budget):
        session = open_session(model, extra_outputs=names, threads=threads, optimize="basic")
        tensors = session.run(feed, names)
        if (found := next((n for n in names if not is_finite(tensors[n])), None)) is not None:
            return found
    return None


def _batches(names: list[str], shapes: dict[str, tuple[int, ...]], budget: int) -> list[list[str]]:
    batches: list[list[str]] = []
    room = 0
    for name in names:
        size = 4 * prod(shapes[name])
        if not batches or size > room:
            batches.append([])
            room = budget
        batches[-1].append(name)
        room -= size
    return batches
