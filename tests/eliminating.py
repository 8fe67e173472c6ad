"""Rules that remove nodes, applied to a model in text: what is left, and that outputs stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.ir import Editor, Model
from onnxslim.passes.simplify.eliminate import RULES
from onnxslim.rewrite import Outcome, apply
from onnxslim.runtime.session import open_session

_TYPES = {
    ir.DataType.FLOAT: np.float32,
    ir.DataType.DOUBLE: np.float64,
    ir.DataType.INT64: np.int64,
    ir.DataType.INT32: np.int32,
    ir.DataType.BOOL: np.bool_,
}


def model_of(text: str, opset: int = 17) -> Model:
    return ir.parse_text(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')


def eliminate(model: Model) -> Outcome:
    """Apply the rules; a second time there must be nothing to do."""
    editor = Editor(model)
    outcome = apply(editor, RULES)
    editor.remove_dead()
    ir.verify(model)
    assert not outcome.stopped
    assert not apply(Editor(model), RULES).count
    return outcome


def operators(model: Model) -> list[str]:
    return [ir.op(node) for node in ir.nodes(model)]


def reasons(outcome: Outcome, rule: str) -> str:
    return " | ".join(miss.reason for miss in outcome.near_misses if miss.rule == rule)


def feed(model: Model, size: int) -> dict[str, ir.Array]:
    """Numbers that are all different; an unknown shape has three axes."""
    made: dict[str, ir.Array] = {}
    for value in model.graph.inputs:
        assert value.dtype is not None
        assert value.name is not None
        dims = (size, 2, 3) if value.shape is None else value.shape
        shape = [d if isinstance(d, int) else size for d in dims]
        numbers: ir.Array = np.arange(int(np.prod(shape))).reshape(shape) - 3.0
        made[value.name] = np.asarray(numbers, _TYPES[value.dtype])
    return made


def largest_difference(before: Model, after: Model, sizes: Sequence[int]) -> float:
    """Over all outputs and sizes; types and shapes are the same."""
    sessions, largest = (open_session(before), open_session(after)), 0.0
    for size in sizes:
        expected, found = (session.run(feed(before, size)) for session in sessions)
        assert list(expected) == list(found)
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            assert found[name].shape == array.shape
            if array.size:
                gap = np.abs(found[name].astype(np.float64) - array.astype(np.float64))
                largest = max(largest, float(gap.max()))
    return largest
