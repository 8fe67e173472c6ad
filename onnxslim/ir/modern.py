"""Raising the IR version, alone: nothing but what the format lists changes."""

from __future__ import annotations

from onnxslim.ir.types import Model
from onnxslim.ir.walk import LISTED_INPUT


def raise_ir_version(model: Model, version: int) -> None:
    """At least this IR version. Since 4, weights are no longer listed as graph inputs.

    In IR version 3 every initializer had to be a graph input as well, and runtimes took it for a
    constant; from 4 on such an input is one that callers may override. The listing is dropped.
    """
    if model.ir_version >= version:
        return
    if model.ir_version < 4 <= version:
        inputs = list(model.graph.inputs)
        model.graph.inputs.clear()
        model.graph.inputs.extend(v for v in inputs if LISTED_INPUT not in v.meta)
        for value in inputs:
            value.meta.pop(LISTED_INPUT, None)
    model.ir_version = version
