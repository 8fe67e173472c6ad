"""onnx-graphsurgeon graphs in and out."""

from __future__ import annotations

from typing import Any

from onnxslim.ir.types import Model


def to_gs(model: Model) -> Any:
    """The model as a `gs.Graph`."""
    import onnx_graphsurgeon

    from onnxslim.ir.io import to_proto

    return onnx_graphsurgeon.import_onnx(to_proto(model))


def from_gs(graph: Any) -> Model:
    """The IR of a `gs.Graph`."""
    import onnx_graphsurgeon

    from onnxslim.ir.io import from_proto

    return from_proto(onnx_graphsurgeon.export_onnx(graph))
