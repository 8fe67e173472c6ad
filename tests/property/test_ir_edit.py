"""Random graphs with branches, random edits: valid after each, and outputs as they have to be."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxslim import ir
from onnxslim.errors import EditError

UNARY = ("Relu", "Neg", "Abs", "Identity")
BINARY = ("Add", "Mul", "Max")

Draw = st.DataObject


def random_model(data: Draw) -> ir.Model:
    """A few nodes on float[3] values, some of them an If with such graphs in its branches."""
    counter = iter(range(1000))

    def body(visible: list[str], depth: int, least: int) -> tuple[str, str, str]:
        """The text of some nodes, of their weights, and the name of the last value."""
        seen = list(visible)
        lines: list[str] = []
        weights: list[str] = []
        for _ in range(data.draw(st.integers(least, 5))):
            name = f"v{next(counter)}"
            kind = data.draw(st.sampled_from(("unary", "binary", "weight", "if")))
            one = data.draw(st.sampled_from(seen))
            if kind == "binary":
                other = data.draw(st.sampled_from(seen))
                lines.append(f"{name} = {data.draw(st.sampled_from(BINARY))}({one}, {other})")
            elif kind == "weight":
                weights.append(f"float[3] w{name} = {{1, -2, 0.5}}")
                lines.append(f"{name} = Mul({one}, w{name})")
            elif kind == "if" and depth < 2:
                branches = [branch(seen, depth + 1) for _ in range(2)]
                then, other = branches
                lines.append(f"{name} = If(c) <then_branch = {then}, else_branch = {other}>")
            else:
                lines.append(f"{name} = {data.draw(st.sampled_from(UNARY))}({one})")
            seen.append(name)
        return "\n".join(lines), ", ".join(weights), seen[-1]

    def branch(visible: list[str], depth: int) -> str:
        lines, weights, last = body(visible, depth, 1)
        held = f"<{weights}>" if weights else ""
        return f"g{next(counter)} () => (float[3] {last}) {held} {{ {lines} }}"

    lines, weights, last = body(["x"], 0, 2)
    held = f"<{weights}>" if weights else ""
    return ir.parse_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        main (float[3] x, bool c) => (float[3] {last}) {held} {{ {lines} }}"""
    )


def outputs(model: ir.Model) -> list[np.ndarray]:
    """Both branches, one input."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(
        ir.to_bytes(model), options, providers=["CPUExecutionProvider"]
    )
    x = np.array([1.25, -0.5, 3], np.float32)
    return [session.run(None, {"x": x, "c": np.array(c)})[0] for c in (True, False)]


def _values(model: ir.Model) -> list[ir.Value]:
    """Values of type float[3]: all but the condition."""
    found = [value for node in ir.nodes(model) for value in (*node.inputs, *node.outputs)]
    return [v for v in dict.fromkeys(found) if v is not None and v.name != "c"]


# Edits that keep what the model computes. Each draws its place; EditError is a fair answer.


def negate_twice(data: Draw, model: ir.Model, editor: ir.Editor) -> None:
    value = data.draw(st.sampled_from(_values(model)))
    uses = [(use.node, use.idx) for use in value.uses()]
    chosen = [use for use in uses if data.draw(st.booleans())]
    one = editor.initializer(editor.scope_of(value), "one", np.ones(3, np.float32))
    chain = [editor.node("Neg", [value], outputs=["n"])]
    chain.append(editor.node("Neg", [chain[0].outputs[0]], outputs=["p"]))
    chain.append(editor.node("Mul", [chain[1].outputs[0], one], outputs=["q"]))
    editor.insert_on_edge(value, chain, chain[2].outputs[0], chosen)


def replace_by_copy(data: Draw, model: ir.Model, editor: ir.Editor) -> None:
    node = data.draw(st.sampled_from([n for n in ir.nodes(model) if n.op_type != "If"]))
    copy = editor.node(node.op_type, list(node.inputs), outputs=["copy"], like=node)
    editor.replace_node(node, [copy], copy.outputs)


def drop_identity(data: Draw, model: ir.Model, editor: ir.Editor) -> None:
    identities = [node for node in ir.nodes(model) if node.op_type == "Identity"]
    if identities:
        node = data.draw(st.sampled_from(identities))
        editor.replace_node(node, [], [node.inputs[0]])


def unshare(data: Draw, model: ir.Model, editor: ir.Editor) -> None:
    node = data.draw(st.sampled_from(list(ir.nodes(model))))
    value = editor.unshare(node, data.draw(st.integers(0, max(len(node.inputs) - 1, 0))))
    content = ir.array(value)
    assert content is not None
    editor.replace_initializer(value, content + np.zeros_like(content))


def rewire_to_copy(data: Draw, model: ir.Model, editor: ir.Editor) -> None:
    value = data.draw(st.sampled_from(_values(model)))
    producer = value.producer()
    uses = [(use.node, use.idx) for use in value.uses()]
    if producer is None or not uses:
        return
    alias = editor.node("Identity", [value], outputs=["alias"])
    editor.insert_after(producer, [alias])
    editor.rewire([data.draw(st.sampled_from(uses))], alias.outputs[0])


def remove_dead(data: Draw, model: ir.Model, editor: ir.Editor) -> None:
    editor.remove_dead()


def snapshot_and_restore(data: Draw, model: ir.Model, editor: ir.Editor) -> None:
    before = ir.checksum(model)
    state = ir.snapshot(model)
    assert ir.checksum(state) == before


EDITS: list[Callable[[Draw, ir.Model, ir.Editor], None]] = [
    negate_twice,
    replace_by_copy,
    drop_identity,
    unshare,
    rewire_to_copy,
    remove_dead,
    snapshot_and_restore,
]

QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@QUICK
@given(st.data())
def test_edits_keep_the_model_valid_and_its_outputs(data: Draw) -> None:
    model = random_model(data)
    before = outputs(model)
    editor = ir.Editor(model)
    for _ in range(data.draw(st.integers(1, 8))):
        edit = data.draw(st.sampled_from(EDITS))
        names = [value.name for value in model.graph.outputs]
        before_edit = _state(model)
        try:
            edit(data, model, editor)
        except EditError:
            assert _state(model) == before_edit, f"{edit.__name__}: refused, changed"
        ir.verify(model)
        assert [value.name for value in model.graph.outputs] == names
    for one, two in zip(before, outputs(model), strict=True):
        np.testing.assert_array_equal(one, two)


def _state(model: ir.Model) -> list[tuple[str | None, list[tuple[ir.Node, int]]]]:
    """Every node with its readers: an edit that was refused must not leave any of its own."""
    return [(value.name, [(use.node, use.idx) for use in value.uses()]) for value in _values(model)]


@QUICK
@given(st.data())
def test_round_trips_keep_everything(data: Draw) -> None:
    model = random_model(data)
    expected = ir.checksum(model)
    assert ir.checksum(ir.load(ir.to_bytes(model))) == expected
    assert ir.checksum(ir.snapshot(model)) == expected
    assert ir.checksum(ir.parse_text(ir.to_text(model))) == expected
    before = outputs(model)
    back = ir.from_gs(ir.to_gs(model))
    for one, two in zip(before, outputs(back), strict=True):
        np.testing.assert_array_equal(one, two)
    ir.raise_opset(model, 21)
    for one, two in zip(before, outputs(model), strict=True):
        np.testing.assert_array_equal(one, two)
