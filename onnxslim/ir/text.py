"""ONNX's text form, for small models: tests, golden files, reproducers."""

from __future__ import annotations

import onnx.parser
import onnx.printer

from onnxslim.errors import ModelError
from onnxslim.ir.io import from_proto, to_proto
from onnxslim.ir.light import one_line
from onnxslim.ir.types import Model


def parse_text(text: str) -> Model:
    """The model that ONNX's text form describes (https://onnx.ai/onnx/repo-docs/Syntax.html).

    Raises:
        ModelError: the text does not parse or describes an invalid model.
    """
    try:
        proto = onnx.parser.parse_model(text)
    except onnx.parser.ParseError as error:
        raise ModelError(f"not ONNX text: {one_line(str(error))}") from error
    return from_proto(proto)


def to_text(model: Model) -> str:
    """The model in ONNX's text form, weights inside: meant for small ones."""
    return str(onnx.printer.to_text(to_proto(model)))
