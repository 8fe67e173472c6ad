"""Over random graphs of constants and inputs, with branches: fold leaves outputs bit-equal."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxslim import ir
from onnxslim.pipeline.analysis import Aspect
from onnxslim.runtime.session import open_session
from tests.golden.cases import run

UNARY = ["Relu", "Neg", "Identity", "Abs", "Sigmoid", "Dropout"]
BINARY = ["Add", "Mul", "Sub", "Max"]


@st.composite
def graphs(draw: st.DrawFn) -> str:
    """Text of a model with inputs x and the condition c, and outputs of any of its values."""
    values = ["x", "w", "v"]
    lines: list[str] = []
    for number in range(draw(st.integers(1, 8))):
        one, other = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        name, kind = f"n{number}", draw(st.sampled_from(["one", "two", "constant", "if"]))
        if kind == "one":
            lines.append(f"{name} = {draw(st.sampled_from(UNARY))} ({one})")
        elif kind == "two":
            lines.append(f"{name} = {draw(st.sampled_from(BINARY))} ({one}, {other})")
        elif kind == "constant":
            lines.append(f"{name} = Constant <value = float[2] {{{number}, 0.5}}> ()")
        else:
            condition = draw(st.sampled_from(["c", "yes", "no"]))
            lines.append(f"""{name} = If ({condition}) <
              then_branch = t{number} () => (float[2] p{number}) <float[2] b{number} = {{2, 3}}> {{
                q{number} = Add ({one}, b{number}) p{number} = Mul (q{number}, {other}) }},
              else_branch = e{number} () => (float[2] r{number}) {{
                r{number} = Neg ({other}) }}>""")
        values.append(name)
    outputs: list[str] = draw(
        st.lists(st.sampled_from(values[3:]), min_size=1, max_size=3, unique=True)
    )
    return f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[2] x, bool c) => ({", ".join(f"float[2] {o}" for o in outputs)})
      <float[2] w = {{1, 2}}, float[2] v = {{-3, 0.25}}, bool yes = {{1}}, bool no = {{0}}> {{
      {" ".join(lines)}
    }}"""


@settings(max_examples=150, deadline=None)
@given(graphs(), st.booleans())
def test_outputs_are_equal_and_nothing_is_left_to_fold(text: str, condition: bool) -> None:
    model = ir.parse_text(text)
    feed = {"x": np.array([0.3, -7], np.float32), "c": np.array(condition)}
    before = open_session(model, optimize="none").run(feed)
    names = [value.name for value in model.graph.outputs]
    run(model, "fold")
    ir.verify(model)
    assert [value.name for value in model.graph.outputs] == names
    after = open_session(model, optimize="none").run(feed)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert run(model, "fold").changed is Aspect.NONE
