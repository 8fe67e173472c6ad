"""Snapshots, checksums, verification, names, the text form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import ModelError

NESTED = """<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
g (float[2] x, bool c) => (float[2] y) <float[2] w = {1, 2}> {
    a = Mul(x, w)
    b = own.Twice(a)
    y = If(c) <
        then_branch = t () => (float[2] p) <float[2] v = {3, 4}> { p = Mul(b, v) },
        else_branch = e () => (float[2] q) { q = Identity(b) }>
}
<opset_import: ["" : 17], domain: "own">
Twice (i) => (o) { o = Add(i, i) }"""


def test_text_round_trip() -> None:
    model = ir.parse_text(NESTED)
    text = ir.to_text(model)
    assert ir.to_text(ir.parse_text(text)) == text
    assert ir.checksum(ir.parse_text(text)) == ir.checksum(model)


def test_bad_text_is_one_line() -> None:
    with pytest.raises(ModelError, match="not ONNX text") as caught:
        ir.parse_text("<ir_version: 8>\nnonsense here")
    assert "\n" not in str(caught.value)


def test_a_snapshot_is_not_changed_by_edits_and_can_be_restored_again() -> None:
    model = ir.parse_text(NESTED)
    model.meta["key"] = 1
    before = ir.checksum(model)
    state = ir.snapshot(model)
    for _ in range(2):
        editor = ir.Editor(model)
        weight = model.graph.initializers["w"]
        editor.replace_initializer(weight, np.zeros((2,), np.float64))
        minus = editor.node("Neg", [model.graph.inputs[0]], outputs=["m"])
        editor.insert_on_edge(model.graph.inputs[0], [minus], minus.outputs[0])
        for function in model.functions.values():
            again = editor.node("Abs", [function.inputs[0]], outputs=["f"])
            editor.insert_on_edge(function.inputs[0], [again], again.outputs[0])
        model.metadata_props["new"] = "x"
        model.graph.inputs[0].dtype = ir.DataType.DOUBLE  # in place, on a shared type object
        model.ir_version = 10
        del model.meta["key"]
        assert ir.checksum(model) != before
        assert ir.checksum(state) == before
        ir.restore(model, state)
        assert ir.checksum(model) == before
        assert model.meta["key"] == 1


def test_a_snapshot_shares_the_weights() -> None:
    model = ir.parse_text(NESTED)
    twin = ir.snapshot(model)
    tensor = model.graph.initializers["w"].const_value
    assert twin.graph.initializers["w"].const_value is tensor


def test_renaming_a_weight_of_a_snapshot_leaves_the_other_alone() -> None:
    model = ir.parse_text(NESTED)
    state = ir.snapshot(model)
    holder = next(node for node in model.graph if node.op_type == "If")
    inner = next(ir.subgraphs(holder)).initializers["v"]
    other = ir.Value(name="v")  # the same name in the main graph: the inner one gives way
    other.const_value = ir.make_tensor(np.ones(2, np.float32), "v")
    model.graph.register_initializer(other)
    assert ir.fix_names(model) == {"v_1": "v"}
    assert inner.name == "v_1"
    assert ir.checksum(state) == ir.checksum(ir.parse_text(NESTED))


def test_a_checksum_sees_contents_not_storage(tmp_path: Path) -> None:
    model = ir.parse_text(NESTED)
    weight = model.graph.initializers["w"]
    rng = np.random.default_rng(0)
    base = ir.checksum(model)
    ir.Editor(model).replace_initializer(weight, np.array([1, 2], np.float32))
    assert ir.checksum(model) == base  # raw bytes now, a list of floats before
    ir.Editor(model).replace_initializer(weight, np.array([1, 3], np.float32))
    assert ir.checksum(model) != base
    large = ir.Editor(model).initializer(
        model.graph, "large", rng.standard_normal(1000).astype(np.float32)
    )
    assert large.name == "large"
    in_memory = ir.checksum(model)
    ir.save(model, tmp_path / "m.onnx", external=True)
    assert ir.checksum(ir.load(tmp_path / "m.onnx")) == in_memory


CONTENTS: dict[str, ir.Array] = {
    "objects": np.array(["a", "bc"], dtype=np.object_),
    "text": np.array(["a", "bc"]),
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "bool": np.array([True, False]),
    "transposed": np.arange(6, dtype=np.float32).reshape(3, 2).T,
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_every_kind_of_array_becomes_a_tensor(content: ir.Array) -> None:
    model = ir.parse_text(NESTED)
    value = ir.Editor(model).initializer(model.graph, "k", content)
    again = ir.array(ir.load(ir.to_bytes(model)).graph.initializers[value.name or ""])
    assert again is not None
    assert again.shape == content.shape
    if content.dtype.kind not in "OU":
        np.testing.assert_array_equal(again, content)
        assert again.dtype == content.dtype
    else:
        assert again.tolist() == [b"a", b"bc"]


# Verification and names


def test_names_are_made_unique_over_branches() -> None:
    """Legal ONNX, but equal names in two branches confuse whoever looks tensors up by name."""
    model = ir.parse_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, bool c) => (float[2] y) {
            y = If(c) <
                then_branch = t () => (float[2] p) <float[2] w = {1, 2}> { p = Mul(x, w) },
                else_branch = e () => (float[2] p) <float[2] w = {3, 4}> { p = Mul(x, w) }>
        }"""
    )
    values = [v for node in ir.nodes(model) for v in (*node.inputs, *node.outputs) if v]
    assert sorted({value.name or "" for value in values}) == ["c", "p", "p_1", "w", "w_1", "x", "y"]
    assert ir.fix_names(model) == {}


def test_verify_names_the_node_and_the_reason() -> None:
    def broken(change: str) -> str:
        model = ir.parse_text(NESTED)
        mul = model.graph[0]
        mul.name = "the-mul"
        inner = next(node for node in ir.nodes(model) if node.outputs[0].name == "p")
        if change == "unregistered":
            stray = ir.Value(name="stray")
            stray.const_value = ir.make_tensor(np.ones(2, np.float32), "stray")
            mul.replace_input_with(1, stray)
        elif change == "nothing":
            mul.replace_input_with(1, ir.Value(name="stray"))
        elif change == "inner":
            mul.replace_input_with(1, inner.outputs[0])
        elif change == "later":
            mul.replace_input_with(1, model.graph[1].outputs[0])
        elif change == "name":
            inner.outputs[0].name = "a"
        elif change == "nameless":
            mul.outputs[0].name = None
        elif change == "operator":
            mul.op_type = "Mull"
        with pytest.raises(ModelError) as caught:
            ir.verify(model)
        return str(caught.value)

    assert "'stray') of node 'the-mul' (Mul) is a constant that is not an init" in (
        broken("unregistered")
    )
    assert "'stray') of node 'the-mul' (Mul) is not an output of any node" in broken("nothing")
    assert "of node 'the-mul' (Mul) is defined in a scope that the node cannot see" in (
        broken("inner")
    )
    assert "of node 'the-mul' (Mul) is computed only after it" in broken("later")
    assert "the name 'a' is defined a second time by node 'a'" in broken("name")
    assert "has no name" in broken("nameless")
    assert "Mull" in broken("operator")


def test_verify_leaves_the_model_as_it_was() -> None:
    model = ir.parse_text(NESTED)
    editor = ir.Editor(model)
    for index in range(3):
        editor.initializer(model.graph, f"large{index}", np.zeros(1000, np.float32))
    order = list(model.graph.initializers)
    before = ir.checksum(model)
    ir.verify(model)
    assert list(model.graph.initializers) == order
    assert [value.name for value in model.graph.inputs] == ["x", "c"]
    assert ir.checksum(model) == before
