"""One body in the main graph, in a nested subgraph and in a function, for edits of all three."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxslim import ir

# One layout in three places: x is an input of the place, w a weight read twice by one node and
# once by another, `twice` is used twice by one node, `seen` is captured by a subgraph, `y` is an
# output of the place.
_BODY = """
    twice = Relu(x)
    doubled = Add(twice, twice)
    seen = Neg(doubled)
    picked = If(c) <
        then_branch = then_{0} () => (float[2] t_{0}) {{ t_{0} = Mul(seen, seen) }},
        else_branch = else_{0} () => (float[2] e_{0}) {{ e_{0} = Identity(seen) }}>
    y = Add(picked, doubled)
"""

MAIN = f"""<ir_version: 8, opset_import: ["" : 17]>
main (float[2] x, bool c) => (float[2] y, float[2] doubled) <float[2] w = {{1, 2}}> {{
    {_BODY.format("a")}
}}"""

_RENAMED = (
    _BODY.format("b")
    .replace("= Relu(x)", "= Relu(outer_x)")
    .replace("twice", "twice_b")
    .replace("doubled", "doubled_b")
    .replace("seen", "seen_b")
    .replace("picked", "picked_b")
    .replace("    y =", "    y_b =")
)

NESTED = f"""<ir_version: 8, opset_import: ["" : 17]>
main (float[2] outer_x, bool c) => (float[2] out) {{
    out = If(c) <
        then_branch = holder () => (float[2] y_b, float[2] doubled_b) {{ {_RENAMED} }},
        else_branch = other () => (float[2] o1, float[2] o2) {{
            o1 = Relu(outer_x)
            o2 = Relu(outer_x)
        }}>
}}""".replace("(float[2] out) {", "(float[2] out, float[2] out2) {").replace(
    "out = If", "out, out2 = If"
)

FUNCTION = f"""<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
main (float[2] a, bool b) => (float[2] r, float[2] r2) {{
    r, r2 = own.Body(a, b)
}}
<opset_import: ["" : 17], domain: "own">
Body (x, c) => (y, doubled) {{
    {_BODY.format("f")}
}}"""

PLACES = {"main": MAIN, "nested": NESTED, "function": FUNCTION}

FEEDS = [{"x": np.array([1.5, -2], np.float32), "c": np.array(choice)} for choice in (True, False)]


class Place:
    """One of the three models, with its nodes and values by the names of the main graph's body."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.model = ir.parse_text(PLACES[kind])
        self.before = self.outputs()
        self.editor = ir.Editor(self.model)

    def node(self, op_type: str, index: int = 0) -> ir.Node:
        """The n-th node of that type in the scope with the body."""
        return [node for node in self.scope if node.op_type == op_type][index]

    @property
    def scope(self) -> ir.Scope:
        return next(s for s in ir.scopes(self.model) if any(n.op_type == "Neg" for n in s))

    def outputs(self) -> list[np.ndarray]:
        """What the model computes from both feeds."""
        return [value for feed in FEEDS for value in run(self.model, feed)]

    def check(self, scale: float = 1.0) -> None:
        """The model is valid and its outputs are `scale` times what they were."""
        ir.verify(self.model)
        for before, after in zip(self.before, self.outputs(), strict=True):
            np.testing.assert_array_equal(before * np.float32(scale), after)


def run(model: ir.Model, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of ONNX Runtime, by position of the inputs."""
    session = _session(ir.to_bytes(model))
    names = [value.name for value in session.get_inputs()]
    values: list[np.ndarray] = session.run(None, dict(zip(names, feed.values(), strict=True)))
    return values


def _session(data: bytes) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def negated_twice(place: Place, value: ir.Value) -> tuple[list[ir.Node], ir.Value]:
    """Two nodes that are not in the graph yet, and the value again behind both."""
    first = place.editor.node("Neg", [value], outputs=["minus"])
    second = place.editor.node("Neg", [first.outputs[0]], outputs=["plus"])
    return [first, second], second.outputs[0]
