"""Every edit in the main graph, in a nested subgraph and in a function, on every kind of value."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import EditError
from tests.places import PLACES, Place, negated_twice


@pytest.fixture(params=sorted(PLACES))
def place(request: pytest.FixtureRequest) -> Place:
    return Place(request.param)


VALUES = {
    "input": ("Relu", "inputs"),
    "used twice by one node": ("Relu", "outputs"),
    "output": ("Add", "outputs"),
    "captured": ("Neg", "outputs"),
}


@pytest.mark.parametrize("which", VALUES)
def test_insert_on_edge_redirects_every_reader(place: Place, which: str) -> None:
    op_type, side = VALUES[which]
    value = getattr(place.node(op_type), side)[0]
    readers = [(use.node, use.idx) for use in value.uses()]
    was_output = value.is_graph_output()
    nodes, new = negated_twice(place, value)
    place.editor.insert_on_edge(value, nodes, new)
    assert all(node.inputs[index] is new for node, index in readers)
    assert [use.node for use in value.uses()] == [nodes[0]]
    assert value.is_graph_output() == was_output
    assert not new.is_graph_output()
    place.check()


def test_insert_on_edge_redirects_only_the_uses_given(place: Place) -> None:
    add = place.node("Add")
    twice = place.node("Relu").outputs[0]
    nodes, new = negated_twice(place, twice)
    place.editor.insert_on_edge(twice, nodes, new, uses=[(add, 1)])
    assert add.inputs[0] is twice
    assert add.inputs[1] is new
    place.check()


def test_insert_on_edge_into_a_subgraph_only(place: Place) -> None:
    seen = place.node("Neg").outputs[0]
    uses = [(use.node, use.idx) for use in seen.uses() if use.node.op_type == "Mul"]
    assert len(uses) == 2
    nodes, new = negated_twice(place, seen)
    place.editor.insert_on_edge(seen, nodes, new, uses)
    place.check()


def test_insert_on_edge_with_a_constant(place: Place) -> None:
    relu, negation = place.node("Relu"), place.node("Neg")
    for value in (relu.inputs[0], negation.outputs[0], relu.inputs[0]):  # input, computed, again
        assert value is not None
        scope = place.editor.scope_of(value)
        one = place.editor.initializer(scope, "one", np.ones(2, np.float32))
        times = place.editor.node("Mul", [value, one], outputs=["same"])
        place.editor.insert_on_edge(value, [times], times.outputs[0])
    place.check()


def test_insert_before_and_after(place: Place) -> None:
    add = place.node("Add")
    probe = place.editor.node("Abs", [place.node("Relu").outputs[0]], outputs=["probe"])
    place.editor.insert_before(add, [probe])
    last = place.editor.node("Abs", [add.outputs[0]], outputs=["last"])
    place.editor.insert_after(add, [last])
    order = list(place.scope)
    assert order.index(probe) == order.index(add) - 1
    assert order.index(last) == order.index(add) + 1
    place.check()
    assert place.editor.remove_dead() == 2 + (place.kind == "main")  # and the weight w
    place.check()


def test_replace_node_of_a_graph_output_keeps_its_name(place: Place) -> None:
    add = place.node("Add")
    old = add.outputs[0]
    name, shape = old.name, old.shape
    two = place.editor.initializer(place.editor.scope_of(add), "two", np.array([2, 2], np.float32))
    times = place.editor.node("Mul", [add.inputs[0], two], outputs=["product"])
    place.editor.replace_node(add, [times], times.outputs)
    new = times.outputs[0]
    assert (new.name, new.shape) == (name, shape)
    assert new.is_graph_output()
    assert add.graph is None
    assert not old.uses()
    place.check()


def test_replace_node_by_a_value_that_is_there(place: Place) -> None:
    relu = place.node("Relu")
    again = place.editor.node("Relu", [relu.outputs[0]], outputs=["again"])
    place.editor.insert_on_edge(relu.outputs[0], [again], again.outputs[0])
    place.editor.replace_node(again, [], [relu.outputs[0]])
    assert again.graph is None
    place.check()


def test_bypass_a_node_inside(place: Place) -> None:
    relu = place.node("Relu")
    again = place.editor.node("Relu", [relu.outputs[0]], outputs=["again"])
    place.editor.insert_on_edge(relu.outputs[0], [again], again.outputs[0])
    name = relu.outputs[0].name
    place.editor.bypass(again, relu.outputs[0])
    assert again.graph is None
    assert relu.outputs[0].name == name
    place.check()


def test_bypass_a_node_before_a_graph_output(place: Place) -> None:
    add = place.node("Add", 1)
    name, shape = add.outputs[0].name, add.outputs[0].shape
    again = place.editor.node("Add", list(add.inputs), outputs=["again"])
    place.editor.insert_before(add, [again])
    copy = place.editor.node("Identity", [again.outputs[0]], outputs=["copy"])
    place.editor.replace_node(add, [copy], copy.outputs)
    place.editor.bypass(copy, again.outputs[0])
    assert copy.graph is None
    assert (again.outputs[0].name, again.outputs[0].shape) == (name, shape)
    assert again.outputs[0].is_graph_output()
    place.check()


def test_replace_node_with_subgraphs(place: Place) -> None:
    branch = place.node("If")
    seen = place.node("Neg").outputs[0]
    captured = len(seen.uses())
    keep = place.editor.node("Identity", [seen], outputs=["kept"])
    place.editor.replace_node(branch, [keep], keep.outputs)
    assert captured == 3
    assert [use.node for use in seen.uses()] == [keep]  # nothing inside the old branches reads on
    ir.verify(place.model)


def test_rewire_one_use(place: Place) -> None:
    add, relu = place.node("Add"), place.node("Relu")
    same = place.editor.node("Abs", [relu.outputs[0]], outputs=["same"])
    place.editor.insert_before(add, [same])
    place.editor.rewire([(add, 0)], same.outputs[0])
    assert list(add.inputs) == [same.outputs[0], relu.outputs[0]]
    place.check()


def test_rewire_into_a_subgraph(place: Place) -> None:
    product = next(node for node in ir.nodes(place.model) if node.op_type == "Mul")
    seen = place.node("Neg").outputs[0]
    nodes, new = negated_twice(place, seen)
    place.editor.insert_after(place.node("Neg"), nodes)
    place.editor.rewire([(product, 0)], new)
    place.check()


def test_a_weight_is_unshared_and_replaced(place: Place) -> None:
    """Scale the output by three through a weight that three places read."""
    editor, add = place.editor, place.node("Add")
    scope = editor.scope_of(add)
    weight = editor.initializer(scope, "shared", np.ones(2, np.float32))
    alias = editor.node("Identity", [weight], outputs=["alias"])
    value = place.node("Relu").outputs[0]
    chain = [editor.node("Mul", [value, weight], outputs=["m1"]), alias]
    chain.append(editor.node("Mul", [chain[0].outputs[0], alias.outputs[0]], outputs=["m2"]))
    editor.insert_on_edge(value, chain, chain[-1].outputs[0])
    own = editor.unshare(chain[2], 1)
    assert own is not weight
    assert chain[2].inputs[1] is own
    assert editor.unshare(chain[2], 1) is own
    editor.replace_initializer(own, np.full(2, 4, np.float32))
    np.testing.assert_array_equal(ir.array(weight), np.ones(2))
    np.testing.assert_array_equal(ir.array(own), np.full(2, 4))
    assert editor.remove_dead() == 1 + (place.kind == "main")  # the alias, and w
    ir.verify(place.model)
    after = place.outputs()
    np.testing.assert_array_equal(after[1], place.before[1] * 4)


def test_constants_of_a_function_are_nodes(place: Place) -> None:
    value = place.editor.initializer(
        place.editor.scope_of(place.node("Relu")), "half", np.array(0.5, np.float16)
    )
    producer = value.producer()
    assert (producer is not None) == (place.kind == "function")
    assert value.is_initializer() == (place.kind != "function")
    tensor = ir.constant(value)
    assert tensor is not None
    assert (tensor.shape.numpy(), tensor.dtype) == ((), ir.DataType.FLOAT16)
    place.check()


def test_names_are_new_everywhere(place: Place) -> None:
    taken = {v.name for s in ir.scopes(place.model) for n in s for v in n.outputs}
    assert all(place.editor.name(name or "") not in taken for name in list(taken))
    assert len({place.editor.name("n") for _ in range(100)}) == 100


WEIGHTS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x, float[2] given) => (float[2] y, float[2] shown)
<float[2] given = {1, 2}, float[2] shown = {3, 4}, float[2] w = {5, 6}> {
    a = Mul(x, w)
    k = Constant <value = float[2] {7, 8}> ()
    b = Mul(a, given)
    d = Mul(b, shown)
    y = Mul(d, k)
}"""


def test_replace_initializer_changes_the_type_but_not_the_name() -> None:
    model = ir.parse_text(WEIGHTS)
    editor = ir.Editor(model)
    state = ir.snapshot(model)
    for index, name in ((0, "w"), (4, "k")):
        value = model.graph[index].inputs[1]
        assert value is not None
        editor.replace_initializer(value, np.array([[1], [2]], np.int8))
        assert value.name == name
        assert (value.dtype, value.shape) == (ir.DataType.INT8, ir.Shape([2, 1]))
    kept = state.graph.initializers["w"]
    assert (kept.dtype, kept.shape) == (ir.DataType.FLOAT, ir.Shape([2]))


@pytest.mark.parametrize(("name", "why"), [("given", "callers can override"), ("shown", "output")])
def test_replace_initializer_refuses_what_others_see(name: str, why: str) -> None:
    model = ir.parse_text(WEIGHTS)
    before = ir.checksum(model)
    with pytest.raises(EditError, match=why):
        ir.Editor(model).replace_initializer(model.graph.initializers[name], np.zeros(2))
    assert ir.checksum(model) == before


def test_remove_dead_goes_through_chains_and_scopes() -> None:
    model = ir.parse_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, bool c) => (float[2] y) <float[2] lonely = {1, 2}> {
            a = Relu(x)
            b = Neg(a)
            dead = If(c) <
                then_branch = t () => (float[2] p) { p = Mul(b, b) },
                else_branch = e () => (float[2] q) { q = Identity(b) }>
            y = If(c) <
                then_branch = t2 () => (float[2] r) <float[2] unused = {1, 2}> {
                    gone = Abs(x)
                    r = Relu(x)
                },
                else_branch = e2 () => (float[2] s) { s = Identity(x) }>
        }"""
    )
    assert ir.Editor(model).remove_dead() == 6  # a, b, the If, gone; lonely, unused
    assert [node.op_type for node in ir.nodes(model)] == ["If", "Relu", "Identity"]
    assert ir.weight_bytes(model) == 0
    assert ir.Editor(model).remove_dead() == 0
    ir.verify(model)


def test_an_initializer_in_ir_version_3_drops_the_listing_of_weights() -> None:
    model = ir.parse_text(
        """<ir_version: 3, opset_import: ["" : 9]>
        g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }"""
    )
    weight = model.graph.initializers["w"]
    assert ir.constant(weight) is not None
    editor = ir.Editor(model)
    two = editor.initializer(model.graph, "two", np.array([2, 2], np.float32))
    times = editor.node("Mul", [weight, two], outputs=["w2"])
    editor.insert_on_edge(weight, [times], times.outputs[0])
    assert model.ir_version == 4
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert ir.constant(weight) is not None
    ir.verify(model)
