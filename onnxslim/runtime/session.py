"""Running a model in ONNX Runtime, with any of its inner values as extra outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Model, to_bytes
from onnxslim.runtime.samples import Array, Feed

Optimize = Literal["all", "extended", "basic", "none"]


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output as the runtime sees it. Unknown dimensions are names or None."""

    name: str
    dtype: np.dtype[Any] | None  # None for what numpy has no type for (sequences, bfloat16)
    shape: tuple[int | str | None, ...] | None


class Session:
    """A model that is ready to run."""

    def __init__(self, ort: Any, inputs: tuple[TensorInfo, ...], outputs: tuple[str, ...]) -> None:
        self._ort = ort
        self.inputs = inputs
        self.outputs = outputs

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Outputs by name for one feed; RuntimeUnavailable when ONNX Runtime fails."""
        names = list(self.outputs if outputs is None else outputs)
        wanted = {info.name for info in self.inputs}
        try:
            values = self._ort.run(names, {k: v for k, v in feed.items() if k in wanted})
        except Exception as error:
            raise RuntimeUnavailable(f"ONNX Runtime failed while running the model: {error}") from error
        return dict(zip(names, values, strict=True))


def open_session(
    model: Model,
    *,
    extra_outputs: Sequence[str] = (),
    threads: int = 1,
    optimize: Optimize = "all",
) -> Session:
    """Open the model in ONNX Runtime on the CPU; `extra_outputs` are values of the main graph."""
    import onnxruntime as rt

    options = rt.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    levels = rt.GraphOptimizationLevel
    options.graph_optimization_level = {
        "all": levels.ORT_ENABLE_ALL,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "basic": levels.ORT_ENABLE_BASIC,
        "none": levels.ORT_DISABLE_ALL,
    }[optimize]
    data = to_bytes(model) if not extra_outputs else to_bytes(model)
    ort = rt.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    inputs = tuple(TensorInfo(i.name, None, tuple(i.shape)) for i in ort.get_inputs())
    return Session(ort, inputs, tuple(o.name for o in ort.get_outputs()))
