"""The proof of a cut: it computes what the masked original does."""

from __future__ import annotations

import numpy as np

from onnxslim.analyses.axes import AxisMap
from onnxslim.analyses.shapes import one_feed
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.prune.mask import mask
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.session import open_session

_TOLERANCE = 1e-3  # of the largest output; float32 rounding of deep models stays well below


def differs(twin: Model, cut: Model, axes: AxisMap, removed: Array, env: Environment) -> str:
    """Why the cut model is not the masked one, on one sample; empty where it is.

    `twin` is a snapshot from before the cut and is masked here.

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
        if getattr(value, "dtype", np.dtype(object)).kind != "f" or value.size == 0:
            continue
        if value.shape != found[name].shape:
            return f"output '{name}' became {found[name].shape} instead of {value.shape}"
        apart = float(np.nanmax(np.abs(value.astype(np.float64) - found[name])))
        if apart > _TOLERANCE * max(float(np.nanmax(np.abs(value))), 1.0):
            return f"output '{name}' is {apart:.3g} away from that of the masked original"
    return ""
