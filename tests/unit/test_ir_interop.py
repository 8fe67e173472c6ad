"""onnx-graphsurgeon graphs in and out: same outputs, weights shared, refusals in words."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import ModelError

gs: Any = import_module("onnx_graphsurgeon")
MODELS = Path(__file__).parents[2] / "models"

BRANCHES = """<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
g (float[2, 2] x, bool c) => (float[2, 2] y, float[2, 2] d) <float[2, 2] small = {1, 2, 3, 4}> {
    a = MatMul(x, small)
    b = own.Twice(a)
    d = Relu(b)
    y = If(c) <
        then_branch = t () => (float[2, 2] p) <float[2, 2] w = {1, 0, 0, 1}> { p = Mul(b, w) },
        else_branch = e () => (float[2, 2] p) <float[2, 2] w = {2, 0, 0, 2}> { p = Mul(b, w) }>
}
<opset_import: ["" : 17], domain: "own">
Twice (i) => (o) { o = Add(i, i) }"""


def dense(size: int) -> ir.Model:
    """Two MatMuls with weights of size x size, and one of them a second time in a branch."""
    model = ir.parse_text(
        f"""<ir_version: 9, opset_import: ["" : 17]>
        g (float[{size}, {size}] x, bool c) => (float[{size}, {size}] y) {{
            a = MatMul(x, x)
            y = If(c) <
                then_branch = t () => (float[{size}, {size}] p) {{ p = MatMul(a, a) }},
                else_branch = e () => (float[{size}, {size}] q) {{ q = MatMul(a, a) }}>
        }}"""
    )
    rng = np.random.default_rng(0)
    editor = ir.Editor(model)
    for node in [node for node in ir.nodes(model) if node.op_type == "MatMul"]:
        content = rng.standard_normal((size, size)).astype(np.float32)
        editor.rewire([(node, 1)], editor.initializer(editor.scope_of(node), "w", content))
    return model


def run(model: ir.Model, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = import_module("onnxruntime").InferenceSession(
        ir.to_bytes(model), providers=["CPUExecutionProvider"]
    )
    outputs: list[np.ndarray] = session.run(None, feed)
    return outputs


def assert_same(one: ir.Model, two: ir.Model, size: int) -> None:
    """Bit-equal outputs for both branches."""
    x = np.random.default_rng(1).standard_normal((size, size)).astype(np.float32)
    for choice in (True, False):
        feed = {"x": x, "c": np.array(choice)}
        for a, b in zip(run(one, feed), run(two, feed), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [2, 40])
def test_there_and_back(size: int) -> None:
    model = ir.parse_text(BRANCHES) if size == 2 else dense(size)
    graph = ir.to_gs(model)
    assert [t.name for t in graph.inputs] == ["x", "c"]
    assert_same(model, ir.from_gs(graph), size)
    assert_same(model, ir.load(gs.import_onnx(gs.export_onnx(graph))), size)


def test_weights_are_shared_both_ways() -> None:
    model = dense(40)
    graph = ir.to_gs(model)
    arrays = {t.name: t.values for n in graph.nodes for t in n.inputs if isinstance(t, gs.Constant)}
    given = ir.array(model.graph.initializers["w"])
    assert given is not None
    assert np.shares_memory(arrays["w"], given)
    back = ir.from_gs(graph)
    returned = ir.array(back.graph.initializers["w"])
    assert returned is not None
    assert np.shares_memory(returned, given)
    assert isinstance(graph.tensors()["w"].values, np.ndarray)  # the graph has its own back


def test_mapped_weights_stay_mapped(tmp_path: Path) -> None:
    ir.save(dense(40), tmp_path / "m.onnx", external=True)
    model = ir.load(tmp_path / "m.onnx")
    graph = ir.to_gs(model)
    tensor = model.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert np.shares_memory(graph.tensors()["w"].values, tensor.numpy())
    assert_same(dense(40), ir.from_gs(graph), 40)


def test_a_graph_that_was_edited_in_graphsurgeon() -> None:
    graph = ir.to_gs(dense(40))
    first = graph.nodes[0]
    first.inputs[1].values = first.inputs[1].values * np.float32(2)
    scaled = ir.from_gs(graph)
    weight = ir.array(dense(40).graph.initializers["w"])
    new = ir.array(scaled.graph.initializers["w"])
    assert weight is not None
    np.testing.assert_array_equal(new, weight * 2)


def test_a_graph_made_in_graphsurgeon() -> None:
    x = gs.Variable("x", np.float32, ("N", 64))
    y = gs.Variable("y", np.float32, ("N", 64))
    w = gs.Constant("w", np.eye(64, dtype=np.float32))
    graph = gs.Graph([gs.Node("MatMul", "mm", inputs=[x, w], outputs=[y])], [x], [y], opset=17)
    model = ir.load(graph)
    assert (ir.opset(model), model.ir_version) == (17, 8)
    feed = {"x": np.arange(64, dtype=np.float32).reshape(1, 64)}
    np.testing.assert_array_equal(run(model, feed)[0], feed["x"])
    assert graph.tensors()["w"].values.shape == (64, 64)


def test_types_that_numpy_lacks_pass_through() -> None:
    model = ir.parse_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float x) => (float[4000] y, float[2] z)
        <int4[4] low = {1, 2, 3, -4}, float s = {2}, bfloat16[2] b = {1, 2}> {
            l = DequantizeLinear(low, s)
            n = Constant <value_ints = [1000]> ()
            t = Tile(l, n)
            y = Mul(t, x)
            z = Cast <to = 1> (b)
        }"""
    )
    back = ir.from_gs(ir.to_gs(model))
    for name in ("low", "b"):
        one, two = ir.array(model.graph.initializers[name]), ir.array(back.graph.initializers[name])
        assert one is not None
        assert two is not None
        assert one.dtype == two.dtype
        assert one.tolist() == two.tolist()


@pytest.mark.parametrize("name", ["vgg", "resnet", "vit"])
def test_real_models(name: str) -> None:
    model = ir.load(MODELS / f"fashion_{name}.onnx")
    info = model.graph.inputs[0]
    shape = [d if isinstance(d, int) else 2 for d in info.shape or ()]
    feed = {info.name or "": np.random.default_rng(0).random(shape).astype(np.float32)}
    back = ir.from_gs(ir.to_gs(model))
    np.testing.assert_array_equal(run(model, feed)[0], run(back, feed)[0])


REFUSED = {
    "the input 'w' has a default value": """g (float[2] x, float[2] w) => (float[2] y)
        <float[2] w = {1, 2}> { y = Mul(x, w) }""",
    "'y' is Optional": "g (float[2] x) => (optional(float[2]) y) { y = Optional(x) }",
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_a_gs_graph_cannot_hold_is_refused(message: str) -> None:
    model = ir.parse_text(f'<ir_version: 8, opset_import: ["" : 17]> {REFUSED[message]}')
    with pytest.raises(ModelError, match=f"onnx-graphsurgeon cannot hold this model: {message}"):
        ir.to_gs(model)


def test_attributes_that_graphsurgeon_drops_are_refused() -> None:
    model = ir.parse_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { y = Relu(x) }"""
    )
    node = model.graph[0]
    attributes = {
        "a list of tensors": ir.Attr(
            "k", ir.AttributeType.TENSORS, (ir.make_tensor(np.ones(1), "t"),)
        ),
        "an empty list": ir.Attr("k", ir.AttributeType.INTS, ()),
        "text that is not UTF-8": ir.Attr("k", ir.AttributeType.STRING, b"\xff"),
    }
    for message, attribute in attributes.items():
        node.attributes["k"] = attribute
        with pytest.raises(ModelError, match=f"attribute 'k' of node 'y' is {message}"):
            ir.to_gs(model)


def test_a_graph_that_graphsurgeon_cannot_export_is_refused() -> None:
    x, y = gs.Variable("x", np.float32, (2,)), gs.Variable("y")
    graph = gs.Graph([gs.Node("Relu", "r", inputs=[x], outputs=[y])], [x], [y], opset=17)
    with pytest.raises(ModelError, match="onnx-graphsurgeon cannot export the graph"):
        ir.load(graph)


def test_an_invalid_gs_graph_names_the_node() -> None:
    x, y = gs.Variable("x", np.float32, (2,)), gs.Variable("y", np.float32, (2,))
    lost = gs.Variable("lost", np.float32, (2,))
    graph = gs.Graph([gs.Node("Add", "sum", inputs=[x, lost], outputs=[y])], [x], [y], opset=17)
    with pytest.raises(ModelError, match=r"'lost'\) of node 'sum'"):
        ir.load(graph)
