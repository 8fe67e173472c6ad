"""A session that a pass leaves serves the same model alone."""

from __future__ import annotations

import numpy as np

from onnxslim import ir
from onnxslim.pipeline.opened import Opened
from onnxslim.runtime.session import open_session

MODEL = """<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y)
<float[2] c = {1.0, 2.0}> { y = Mul (x, c) }"""


def test_the_session_is_that_of_the_model_as_it_was() -> None:
    model, opened = ir.parse_text(MODEL), Opened()
    assert opened.find(model) is None
    session = open_session(model)
    opened.keep(model, session)
    assert opened.find(model) is session
    assert opened.find(ir.snapshot(model)) is session
    model.graph.initializers["c"].const_value = ir.Tensor(np.ones(2, np.float32), name="c")
    assert opened.find(model) is None


def test_it_is_let_go() -> None:
    model, opened = ir.parse_text(MODEL), Opened()
    opened.keep(model, open_session(model))
    opened.clear()
    assert opened.find(model) is None
