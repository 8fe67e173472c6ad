"""A tiny model, and a context in which passes run on it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from onnxslim import ir
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment
from onnxslim.targets import get_target

_TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x) => (float[2] y) { y = Relu(x) }
"""


def context() -> Iterator[Context]:
    """One context, closed afterwards: to be made a fixture."""
    model = ir.parse_text(_TEXT)
    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor)
        yield Context(env, AnalysisManager(model, env), ir.snapshot(model))
