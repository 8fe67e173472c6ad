"""Whether ONNX Runtime takes what quant made: nothing that it rejects leaves the pass."""

from __future__ import annotations

from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Model
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.session import open_session


def rejected(before: Model, after: Model, env: Environment) -> str | None:
    """Why the quantized model does not run while the model before does; None where it runs.

    It is opened, and run on the first calibration sample if there are any. Where the runtime
    lacks what the float model needs (operators of other vendors), nothing can be told.
    """
    try:
        _run(after, env)
    except RuntimeUnavailable as error:
        try:
            _run(before, env)
        except RuntimeUnavailable:
            return None
        return f"taken back: ONNX Runtime rejects the quantized model: {error}"
    return None


def _run(model: Model, env: Environment) -> None:
    session = env.opened.find(model) or open_session(model, threads=env.threads)
    if env.calib:
        session.run(env.calib[0])
