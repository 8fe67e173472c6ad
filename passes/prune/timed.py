"""How much faster a cut makes a model, by the clock."""

from __future__ import annotations

from onnxslim import ir
from onnxslim.analyses.axes import axis_map
from onnxslim.analyses.shapes import one_feed
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.prune.cut import cut
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.latency import LatencyResult, interleaved_latency

_SECONDS = 2.0


def measure(
    model: Model, removed: Array, base: Model, env: Environment, *, width: bool = False
) -> LatencyResult:
    """The time of the base and of a copy of the model without the classes `removed`, in turns.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run one of them.
    """
    copy = ir.snapshot(model)
    editor = Editor(copy)
    cut(editor, axis_map(copy, width=width), removed)  # classes are numbered alike in a snapshot
    editor.remove_dead()
    return interleaved_latency([base, copy], one_feed(base, env), env.threads, _SECONDS)
