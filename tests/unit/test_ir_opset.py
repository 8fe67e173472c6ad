"""Raising the opset: outputs, names, metadata and weights survive, at any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import EditError

# What a PaddleOCR export of opset 11 has: attributes that later became inputs, in a branch too.
OCR = """<ir_version: 6, opset_import: ["" : 11]>
ocr (float[1, 3, 8, 8] x, bool c) => (float[1, 4] y, float[1, 4, 16, 16] big)
<float[4, 3, 3, 3] w, float[4] slope_b = {0, 0, 0, 0}, float[4] scales = {1, 1, 2, 2},
 float[0] roi = {}, float low = {0}, float high = {6}> {
    conv = Conv <pads = [1, 1, 1, 1]> (x, w)
    hard = HardSigmoid <alpha = 0.2, beta = 0.5> (conv)
    clip = Clip (conv, low, high)
    mul = Mul (hard, clip)
    big = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",
                  nearest_mode = "floor"> (mul, roi, scales)
    mean = ReduceMean <axes = [2, 3], keepdims = 1> (big)
    flat = Squeeze <axes = [2, 3]> (mean)
    prob = Softmax <axis = 1> (flat)
    pick = If (c) <
        then_branch = t () => (float[1, 4] p) <float[4] inner_w = {1, 2, 3, 4}> {
            up = Unsqueeze <axes = [0]> (prob)
            sum = ReduceSum <axes = [0], keepdims = 0> (up)
            p = Mul (sum, inner_w)
        },
        else_branch = e () => (float[1, 4] q) { q = Identity (prob) }>
    y = Dropout (pick)
}"""


def ocr() -> ir.Model:
    """The model with weights, metadata and documentation."""
    text = OCR.replace("float[4, 3, 3, 3] w,", "")
    text = text.replace("bool c)", "bool c, float[4, 3, 3, 3] w)")
    model = ir.parse_text(text)
    rng = np.random.default_rng(0)
    weight = model.graph.inputs[2]
    weight.const_value = ir.make_tensor(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w")
    model.graph.register_initializer(weight)
    model.graph.inputs.remove(weight)
    model.metadata_props["character"] = "abc"
    model.doc_string = "about the model"
    conv = model.graph[0]
    conv.name, conv.doc_string = "conv-node", "about the node"
    conv.metadata_props["layer"] = "first"
    conv.outputs[0].metadata_props["value"] = "metadata"
    model.graph.metadata_props["graph"] = "metadata"
    return model


def run(model: ir.Model) -> list[np.ndarray]:
    """Outputs for both branches."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 3, 8, 8)).astype(np.float32)
    session = _session(ir.to_bytes(model))
    return [y for c in (True, False) for y in session.run(None, {"x": x, "c": np.array(c)})]


def _session(data: bytes) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("steps", [(12,), (13,), (17,), (21,), (12, 13, 17, 21)], ids=str)
def test_outputs_are_equal_in_every_opset(steps: tuple[int, ...]) -> None:
    model = ocr()
    before = run(model)
    for version in steps:
        ir.raise_opset(model, version)
        assert ir.opset(model) == version
        ir.verify(model)
    for one, two in zip(before, run(model), strict=True):
        np.testing.assert_array_equal(one, two)  # the same operators on the same numbers


def test_what_survives_keeps_its_names_and_metadata() -> None:
    model = ocr()
    weight = model.graph.initializers["w"].const_value
    interface = _interface(model)
    ir.raise_opset(model, 17)
    assert model.graph.initializers["w"].const_value is weight
    assert _interface(model) == interface
    assert model.metadata_props == {"character": "abc"}
    assert model.doc_string == "about the model"
    assert model.graph.metadata_props == {"graph": "metadata"}
    assert model.graph.name == "ocr"
    conv = next(node for node in model.graph if node.op_type == "Conv")
    assert (conv.name, conv.doc_string) == ("conv-node", "about the node")
    assert conv.metadata_props == {"layer": "first"}
    assert conv.outputs[0].metadata_props == {"value": "metadata"}
    assert not any((node.name or "").startswith("onnxslim-") for node in ir.nodes(model))


def _interface(model: ir.Model) -> list[tuple[str | None, Any, str]]:
    values = (*model.graph.inputs, *model.graph.outputs)
    return [(value.name, value.dtype, str(value.shape)) for value in values]


def test_weights_of_branches_stay_there_by_reference() -> None:
    model = ocr()
    holder = next(node for node in model.graph if node.op_type == "If")
    branch = next(ir.subgraphs(holder))
    large = ir.make_tensor(np.ones((1, 4, 1000), np.float32), "large")
    value = ir.Value(name="large", shape=ir.Shape([1, 4, 1000]), type=ir.TensorType(large.dtype))
    value.const_value = large
    branch.register_initializer(value)
    ir.raise_opset(model, 17)
    holder = next(node for node in model.graph if node.op_type == "If")
    branch = next(ir.subgraphs(holder))
    assert branch.initializers["large"].const_value is large
    assert "large" not in model.graph.initializers


def test_the_ir_version_rises_as_it_must_and_nothing_falls() -> None:
    model = ocr()
    ir.raise_opset(model, 11)
    assert (ir.opset(model), model.ir_version) == (11, 6)
    ir.raise_opset(model, 13)
    assert (ir.opset(model), model.ir_version) == (13, 7)
    ir.raise_opset(model, 21)
    assert (ir.opset(model), model.ir_version) == (21, 10)
    graph = model.graph
    ir.raise_opset(model, 13)
    assert ir.opset(model) == 21
    assert model.graph is graph


def test_ir_version_3_drops_the_listing_of_weights() -> None:
    model = ir.parse_text(
        """<ir_version: 3, opset_import: ["" : 8]>
        g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }"""
    )
    ir.raise_opset(model, 13)
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert ir.constant(model.graph.initializers["w"]) is not None
    assert model.ir_version == 7


def test_an_input_with_a_default_stays_one() -> None:
    model = ir.parse_text(
        """<ir_version: 6, opset_import: ["" : 11]>
        g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }"""
    )
    ir.raise_opset(model, 13)
    assert [value.name for value in model.graph.inputs] == ["x", "w"]
    assert not ir.is_fixed(model.graph.initializers["w"])


FUNCTION = """<ir_version: 8, opset_import: ["" : 15, "own" : 1]>
g (float[2] x) => (float[2] y) { y = own.F(x) }
<opset_import: ["" : 15], domain: "own">
F (i) => (o) { o = BODY }"""


def test_functions_rise_along_when_their_operators_are_the_same() -> None:
    model = ir.parse_text(FUNCTION.replace("BODY", "Sigmoid(i)"))
    ir.raise_opset(model, 17)
    assert [f.opset_imports[""] for f in model.functions.values()] == [17]
    ir.verify(model)


def test_functions_whose_operators_changed_are_refused() -> None:
    model = ir.parse_text(FUNCTION.replace("BODY", "Relu(i) t = ReduceMean <axes = [0]> (i)"))
    before = ir.checksum(model)
    with pytest.raises(EditError, match=r"ReduceMean \('t'\) in function 'F' changed"):
        ir.raise_opset(model, 18)
    assert ir.checksum(model) == before


def test_what_the_converter_cannot_do_is_refused() -> None:
    model = ir.parse_text(
        """<ir_version: 4, opset_import: ["" : 8]>
        g (float[2, 3, 1] x, float[2, 1] s) => (float[2, 1] t, float[2, 3, 1] z) {
            t, z = Scan <num_scan_inputs = 1, body = b (float[1] a, float[1] i)
                => (float[1] n, float[1] o) { n = Add(a, i)  o = Identity(n) }> ("", s, x)
        }"""
    )
    before = ir.checksum(model)
    with pytest.raises(EditError, match="opset 8 cannot be raised to 13: Scan"):
        ir.raise_opset(model, 13)
    with pytest.raises(EditError, match="opset 8 cannot be raised to 9999"):
        ir.raise_opset(model, 9999)
    assert ir.checksum(model) == before


def test_a_model_without_standard_operators_gets_the_import() -> None:
    model = ir.parse_text(
        """<ir_version: 8, opset_import: ["com.example" : 1]>
        g (float[2] x) => (float[2] y) { y = com.example.Own(x) }"""
    )
    assert ir.opset(model) is None
    ir.raise_opset(model, 13)
    assert ir.opset(model) == 13


def test_weights_in_files_are_not_read(tmp_path: Path) -> None:
    model = ocr()
    editor = ir.Editor(model)
    large = editor.initializer(model.graph, "large", np.zeros((1, 4, 1000), np.float32))
    pool = editor.node("ReduceMean", [large], outputs=["m"], attributes={"axes": [2]})
    editor.insert_before(model.graph[0], [pool])
    ir.save(model, tmp_path / "m.onnx", external=True)
    model = ir.load(tmp_path / "m.onnx")
    ir.raise_opset(model, 21)
    tensor = model.graph.initializers["large"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert tensor.raw is None  # never mapped
    ir.verify(model)
