"""Names under which packages look for parts of the other onnxslim (PyPI)."""

from __future__ import annotations

from typing import Any

from onnxslim import ir

__all__ = ["shape_infer"]


def shape_infer(model: Any) -> Any:
    """The model with the types and shapes of its inner values written into it.

    It is of the kind that was given (`ModelProto`, `gs.Graph`, ...); for a path a `ModelProto`.

    Raises:
        onnxslim.errors.ModelError: The model is invalid.
    """
    kind: ir.Kind = ir.kind_of(model)
    loaded = ir.load(model)
    ir.declare_types(loaded)
    return ir.to_kind(loaded, "proto" if kind == "path" else kind)
