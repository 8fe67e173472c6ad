"""ONNX's reference implementation: slow, and complete where runtimes lack operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir.io import to_proto
from onnxslim.ir.light import one_line
from onnxslim.ir.types import Model


def run_reference(model: Model, feed: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a model by name.

    Raises:
        RuntimeUnavailable: the reference implementation cannot run the model either.
    """
    import onnx.reference  # late: it takes its time

    try:
        session = onnx.reference.ReferenceEvaluator(to_proto(model))
        results = session.run(None, dict(feed))
    except Exception as error:  # its errors share no base class
        text = one_line(f"{type(error).__name__}: {error}")
        raise RuntimeUnavailable(f"ONNX's reference cannot run the model: {text}") from error
    names = [str(name) for name in session.output_names]
    return dict(zip(names, list(results), strict=True))
