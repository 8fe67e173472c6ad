"""What is loaded, and with which words everything else is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, SparseTensorProto, TensorProto  # noqa: TID251 - protos are an input
from onnx import helper as make  # noqa: TID251

from onnxslim import ir
from onnxslim.errors import ModelError

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 2] x) => (float[N, 3] y) <float[2, 3] w = {1, 2, 3, 4, 5, 6}> {
    y = MatMul(x, w)
}"""


def proto() -> ModelProto:
    """A small valid model."""
    return ir.to_proto(ir.parse_text(TEXT))


def big() -> ir.Model:
    """A model with two weights that are large enough for a data file, and one that is not."""
    rng = np.random.default_rng(0)
    model = ir.parse_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[64, 64] x) => (float[64, 64] y) {
            h = MatMul(x, x)
            i = MatMul(h, h)
            y = Relu(i)
        }"""
    )
    editor = ir.Editor(model)
    for index in (0, 1):
        weight = rng.standard_normal((64, 64)).astype(np.float32)
        value = editor.initializer(model.graph, f"w{index}", weight)
        editor.rewire([(model.graph[index], 1)], value)
    bias = editor.initializer(model.graph, "b", np.ones(64, np.float32))
    add = editor.node("Add", [model.graph[1].outputs[0], bias], outputs=["biased"])
    editor.insert_on_edge(model.graph[1].outputs[0], [add], add.outputs[0])
    ir.verify(model)
    return model


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A saved model with external data."""
    ir.save(big(), tmp_path / "m.onnx", external=True)
    return tmp_path / "m.onnx"


# Kinds


def test_each_kind_is_told_and_given_back(tmp_path: Path) -> None:
    model = ir.parse_text(TEXT)
    ir.save(model, tmp_path / "m.onnx")
    sources: dict[ir.Kind, Any] = {
        "path": tmp_path / "m.onnx",
        "bytes": ir.to_bytes(model),
        "proto": proto(),
        "model": model,
        "gs": ir.to_gs(model),
    }
    for kind, source in sources.items():
        assert ir.kind_of(source) == kind
        loaded = ir.load(source)
        np.testing.assert_array_equal(
            ir.array(loaded.graph.initializers["w"]), [[1, 2, 3], [4, 5, 6]]
        )
        back = ir.to_kind(loaded, kind)
        assert ir.kind_of(back) == ("model" if kind == "path" else kind)
    assert ir.kind_of(str(tmp_path)) == "path"


def test_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match=r"got a dict; expected a path, bytes"):
        ir.load({"a": 1})


def test_a_loaded_model_is_the_callers_own() -> None:
    source = ir.parse_text(TEXT)
    before = ir.checksum(source)
    loaded = ir.load(source)
    ir.Editor(loaded).replace_initializer(
        loaded.graph.initializers["w"], np.zeros((2, 3), np.float32)
    )
    assert ir.checksum(source) == before != ir.checksum(loaded)


def test_weights_of_a_proto_are_shared() -> None:
    given = proto()
    tensor = ir.load(given).graph.initializers["w"].const_value
    assert tensor is not None
    assert tensor.raw is given.graph.initializer[0]


# Bad files


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_bad_files_are_refused(tmp_path: Path) -> None:
    good = proto().SerializeToString()
    no_graph = ModelProto(ir_version=8)
    cases = {
        "no such file": tmp_path / "missing.onnx",
        "is a folder": tmp_path,
        "is empty": _write(tmp_path / "empty.onnx", b""),
        "is not an ONNX model": _write(tmp_path / "text.onnx", b"hello, this is text\n"),
        "is truncated or damaged": _write(tmp_path / "cut.onnx", good[: len(good) // 2]),
        "has no IR version or no graph": _write(
            tmp_path / "shell.onnx", no_graph.SerializeToString()
        ),
    }
    for message, path in cases.items():
        with pytest.raises(ModelError, match=message) as caught:
            ir.load(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_every_truncation_is_a_model_error() -> None:
    good = proto().SerializeToString()
    whole = ir.checksum(ir.load(good))
    for length in range(len(good)):
        try:
            cut = ir.load(good[:length])
        except ModelError:
            continue
        assert ir.checksum(cut) == whole, f"{length} bytes of {len(good)} pass as another model"


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "locked.onnx", proto().SerializeToString())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(ModelError, match="cannot be read"):
        ir.load(path)


# Invalid graphs, with the name of the node


BROKEN: list[tuple[Callable[[ModelProto], object], str]] = [
    (lambda p: p.graph.node[0].input.__setitem__(1, "nothing"), r"'nothing'.*'mm'"),
    (lambda p: setattr(p.graph.node[0], "op_type", "Bogus"), r"Bogus"),
    (lambda p: p.graph.node[0].input.pop(), r"mm"),
    (lambda p: setattr(p.graph.output[0], "name", "z"), r"output 'z' of graph 'g'"),
    (lambda p: p.graph.node.append(p.graph.node[0]), r"'y'"),
    (lambda p: p.ClearField("opset_import"), r"opset"),
    (lambda p: setattr(p, "ir_version", 1000), r"ir_version|IR version"),
    (lambda p: p.graph.ClearField("name"), r"name"),
    (lambda p: p.graph.node[0].attribute.append(make.make_attribute("k", 1)), r"mm.*k|k.*mm"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_an_invalid_graph_is_refused(change: Any, message: str) -> None:
    broken = proto()
    broken.graph.node[0].name = "mm"
    change(broken)
    with pytest.raises(ModelError, match=message) as caught:
        ir.load(broken)
    assert "\n" not in str(caught.value)


def test_unsorted_nodes_are_refused() -> None:
    broken = ir.to_proto(
        ir.parse_text(TEXT.replace("y = MatMul(x, w)", "h = MatMul(x, w)  y = Relu(h)"))
    )
    nodes = list(broken.graph.node)[::-1]
    del broken.graph.node[:]
    broken.graph.node.extend(nodes)
    with pytest.raises(ModelError, match=r"'h'.*only after it; nodes must be sorted"):
        ir.load(broken)


# What the IR cannot hold


def _sparse(indices: list[int], dims: list[int], shape: list[int]) -> SparseTensorProto:
    values = make.make_tensor("s", TensorProto.FLOAT, [2], [5.0, 7.0])
    return make.make_sparse_tensor(
        values, make.make_tensor("i", TensorProto.INT64, shape, indices), dims
    )


@pytest.mark.parametrize(("indices", "shape"), [([1, 5], [2]), ([0, 1, 1, 2], [2, 2])])
def test_sparse_initializers_become_dense(indices: list[int], shape: list[int]) -> None:
    given = proto()
    given.graph.initializer.pop()
    given.graph.node[0].input[1] = "s"
    given.graph.sparse_initializer.append(_sparse(indices, [2, 3], shape))
    before = given.SerializeToString()
    model = ir.load(given)
    np.testing.assert_array_equal(ir.array(model.graph.initializers["s"]), [[0, 5, 0], [0, 0, 7]])
    assert given.SerializeToString() == before


def test_a_huge_sparse_initializer_is_refused() -> None:
    given = proto()
    given.graph.sparse_initializer.append(_sparse([1, 5], [1 << 20, 1 << 20], [2]))
    with pytest.raises(ModelError, match=r"sparse initializer 's'.*4194304 MB"):
        ir.load(given)


def test_sparse_indices_out_of_range_are_refused() -> None:
    given = proto()
    given.graph.sparse_initializer.append(_sparse([1, 500], [2, 3], [2]))
    with pytest.raises(ModelError, match=r"sparse initializer 's'.*invalid"):
        ir.load(given)


def test_sparse_attributes_maps_and_training_are_refused() -> None:
    sparse = proto()
    attribute = make.make_attribute("sparse_value", _sparse([1, 5], [2, 3], [2]))
    sparse.graph.node.append(make.make_node("Constant", [], ["k"], "const"))
    sparse.graph.node[-1].attribute.append(attribute)
    with pytest.raises(ModelError, match=r"'sparse_value' of node 'const'.*sparse tensor"):
        ir.load(sparse)
    mapped = proto()
    mapped.graph.output[0].type.map_type.key_type = TensorProto.INT64
    with pytest.raises(ModelError, match="'y' in graph 'g' is a map"):
        ir.load(mapped)
    training = proto()
    training.training_info.add()
    with pytest.raises(ModelError, match="training_info"):
        ir.load(training)


def test_a_domain_imported_twice() -> None:
    same = proto()
    same.opset_import.add(domain="ai.onnx", version=17)
    model = ir.load(same)
    assert dict(model.opset_imports) == {"": 17}
    assert ir.opset(model) == 17
    other = proto()
    other.opset_import.add(domain="ai.onnx", version=18)
    with pytest.raises(ModelError, match=r"two versions, 17 and 18"):
        ir.load(other)


def test_ir_version_3_is_kept() -> None:
    text = """<ir_version: 3, opset_import: ["" : 9]>
    g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }"""
    model = ir.parse_text(text)
    back = ir.to_proto(model)
    assert back.ir_version == 3
    assert [value.name for value in back.graph.input] == ["x", "w"]
    assert ir.is_fixed(model.graph.initializers["w"])


def test_an_input_with_a_default_is_no_constant() -> None:
    text = """<ir_version: 8, opset_import: ["" : 9]>
    g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }"""
    model = ir.parse_text(text)
    assert ir.constant(model.graph.initializers["w"]) is None
    assert [value.name for value in ir.to_proto(model).graph.input] == ["x", "w"]


# External data


def test_external_weights_are_mapped_until_touched(external: Path) -> None:
    model = ir.load(external)
    tensor = model.graph.initializers["w0"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert tensor.raw is None  # not even mapped yet
    np.testing.assert_array_equal(tensor.numpy(), ir.array(big().graph.initializers["w0"]))
    assert tensor.raw is not None
    assert ir.checksum(model) == ir.checksum(big())


def _relocated(path: Path, location: str) -> Path:
    given = ModelProto.FromString(path.read_bytes())
    for tensor in given.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(given.SerializeToString())
    return path


def test_bad_locations_are_refused(external: Path, tmp_path: Path) -> None:
    data = external.with_name("m.onnx.data")
    outside = tmp_path.parent / f"{tmp_path.name}-outside.data"
    outside.write_bytes(data.read_bytes())
    (tmp_path / "link.data").symlink_to(outside)
    (tmp_path / "inner.data").symlink_to(data)
    (tmp_path / "folder.data").mkdir()
    cases = {
        str(outside): "is absolute",
        "C:\\weights.data": "is absolute",
        f"../{outside.name}": "leads out of the model's folder",
        "nothing.data": "is missing",
        "link.data": "is a link to",
        "folder.data": "is not a regular file",
        "": "no location",
    }
    for location, message in cases.items():
        with pytest.raises(ModelError, match=message) as caught:
            ir.load(_relocated(external, location))
        assert str(caught.value).startswith(str(external))
        assert "'w0'" in str(caught.value)
    os.link(data, tmp_path / "hard.data")
    for location in ("inner.data", "hard.data"):  # links within the folder are fine
        model = ir.load(_relocated(external, location))
        assert ir.checksum(model) == ir.checksum(big())
        assert ir.array(model.graph.initializers["w0"]) is not None


def test_data_that_are_too_short_are_refused(external: Path) -> None:
    data = external.with_name("m.onnx.data")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"'w1'.*too short: 32767 bytes, expected at least 32768"):
        ir.load(external)


def test_a_length_that_does_not_fit_the_shape_is_refused(external: Path) -> None:
    given = ModelProto.FromString(external.read_bytes())
    for entry in given.graph.initializer[0].external_data:
        if entry.key == "length":
            entry.value = "100"
    external.write_bytes(given.SerializeToString())
    with pytest.raises(ModelError, match=r"length 100; expected 16384 bytes"):
        ir.load(external)


def test_external_data_of_a_proto_need_a_folder(external: Path, tmp_path: Path) -> None:
    given = ModelProto.FromString(external.read_bytes())
    with pytest.raises(ModelError, match=r"'w0' lies in the external file 'm.onnx.data'"):
        ir.load(given)
    assert ir.checksum(ir.load(given, folder=tmp_path)) == ir.checksum(big())


def test_a_proto_or_bytes_carry_external_weights_inside(external: Path) -> None:
    back = ir.to_proto(ir.load(external))
    assert all(t.data_location == TensorProto.DEFAULT for t in back.graph.initializer)
    assert ir.checksum(ir.load(back)) == ir.checksum(big())


def test_an_output_without_a_shape_stays_without(tmp_path: Path) -> None:
    model = ir.parse_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { y = Relu(x) }'
    )
    proto = ir.to_proto(model)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    ir.save(ir.load(proto), tmp_path / "out.onnx")
    assert ir.load(tmp_path / "out.onnx").graph.outputs[0].shape is None
