"""Weights stay in the file that a model comes from, and go from there into the one it is saved to.

The limit from which tensors stay outside is set to one byte here, so that all kinds of them do.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper  # noqa: TID251 - protos are an input

from onnxslim import ir
from onnxslim.errors import ModelError
from onnxslim.ir import carve
from onnxslim.ir.mapped import MappedTensor
from onnxslim.ir.wire import WireError, as_varint, field_at, varint

TEXT = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
g (float[2, 3] x, bool c) => (float[2, 3] y) <float[2, 3] w = {1, 2, 3, 4, 5, 6}> {
    k = Constant <value = float[2, 3] {6, 5, 4, 3, 2, 1}> ()
    a = Add(x, w)
    b = own.twice(a)
    y = If(c) <
        then_branch = t () => (float[2, 3] p) <float[2, 3] v = {7, 7, 7, 8, 8, 8}> {
            p = Mul(b, v)
        },
        else_branch = e () => (float[2, 3] q) { q = Sub(b, k) }>
}
<domain: "own", opset_import: ["" : 17]>
twice (x) => (y) {
    two = Constant <value = float[1] {2}> ()
    y = Mul(x, two)
}"""

OUTSIDE = {"w": [1, 2, 3, 4, 5, 6], "v": [7, 7, 7, 8, 8, 8], "k": [6, 5, 4, 3, 2, 1], "two": [2]}


@pytest.fixture(autouse=True)
def _all_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carve, "CARVED", 1)


def raw_proto() -> ModelProto:
    """A model with weights in the main graph, in a branch, in an attribute and in a function."""
    proto: ModelProto = ModelProto.FromString(ir.to_bytes(with_arrays(ir.parse_text(TEXT))))
    return proto


def with_arrays(model: ir.Model) -> ir.Model:
    """The same model; its tensors hold arrays, so that they are written as raw data."""
    for scope in ir.scopes(model):
        if isinstance(scope, ir.Graph):
            for value in scope.initializers.values():
                value.const_value = ir.make_tensor(np.array(ir.array(value)), value.name or "")
        for node in scope:
            if (attr := node.attributes.get("value")) is not None:
                tensor = ir.make_tensor(attr.as_tensor().numpy(), node.outputs[0].name or "")
                node.attributes["value"] = ir.Attr("value", ir.AttributeType.TENSOR, tensor)
    return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "m.onnx").write_bytes(raw_proto().SerializeToString())
    return tmp_path / "m.onnx"


def test_every_tensor_stays_in_the_file_wherever_it_is(path: Path) -> None:
    found = {t.name: t.numpy().ravel().tolist() for t in ir.tensors(ir.load(path))}
    assert found == OUTSIDE
    assert all(isinstance(tensor, MappedTensor) for tensor in ir.tensors(ir.load(path)))


def test_what_is_saved_and_what_is_loaded_is_what_protobuf_makes_of_it(path: Path) -> None:
    model = ir.load(path)
    ir.save(model, path.with_name("out.onnx"))
    saved = ModelProto.FromString(path.with_name("out.onnx").read_bytes())
    assert saved == ir.to_proto(ir.load(raw_proto())) == ModelProto.FromString(ir.to_bytes(model))
    assert ir.checksum(model) == ir.checksum(ir.load(raw_proto()))


def test_over_the_own_file_and_again(path: Path) -> None:
    model = ir.load(path)
    ir.save(model, path)
    first = path.read_bytes()
    ir.save(model, path)
    assert path.read_bytes() == first
    assert ir.checksum(ir.load(path)) == ir.checksum(model)


def test_external_data_are_made_from_it(path: Path) -> None:
    big = np.arange(1000, dtype=np.float32).reshape(10, 100)
    model = ir.parse_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 10] x) => (float[N, 100] y) <float[1] w = {1}> { y = MatMul(x, w) }"""
    )
    tensor = ir.make_tensor(big, "w")
    ir.Editor(model).replace_initializer(model.graph.initializers["w"], tensor)
    ir.save(model, path)
    loaded = ir.load(path)
    ir.save(loaded, path.with_name("out.onnx"), external=True)
    assert path.with_name("out.onnx.data").read_bytes() == big.tobytes()
    assert ir.checksum(ir.load(path.with_name("out.onnx"))) == ir.checksum(loaded)


TYPES = [
    ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE,
    ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT64, ir.DataType.BOOL,
    ir.DataType.COMPLEX64, ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.FLOAT8E4M3FN,
]  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: str(dtype))
def test_elements_are_those_that_protobuf_gives(dtype: ir.DataType, tmp_path: Path) -> None:
    data = (np.arange(40, dtype=np.uint8) % 2).tobytes()
    count = 40 * 8 // dtype.bitwidth
    tensor = TensorProto(name="w", data_type=dtype.value, dims=[5, count // 5], raw_data=data)
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["w"], ["y"])],
            "g",
            [],
            [helper.make_tensor_value_info("y", dtype.value, [5, count // 5])],
            [tensor],
        ),
        opset_imports=[helper.make_opsetid("", 23)],
        ir_version=11,
    )
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    mapped = ir.load(tmp_path / "m.onnx").graph.initializers["w"].const_value
    parsed = ir.load(proto).graph.initializers["w"].const_value
    assert isinstance(mapped, MappedTensor)
    assert parsed is not None
    assert not isinstance(parsed, MappedTensor)
    np.testing.assert_array_equal(mapped.numpy(), parsed.numpy())
    assert mapped.numpy().dtype == parsed.numpy().dtype
    assert mapped.tobytes() == parsed.tobytes() == data


# What is wrong with a file is told as before


def test_every_truncation_gives_what_protobuf_gives() -> None:
    good = raw_proto().SerializeToString()
    for length in range(len(good)):
        assert _outcome(good[:length]) == _outcome_of_protobuf(good[:length]), f"{length} bytes"


def test_every_damaged_byte_gives_what_protobuf_gives() -> None:
    good = raw_proto().SerializeToString()
    for at in range(0, len(good), 3):
        bad = good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :]
        assert _outcome(bad) == _outcome_of_protobuf(bad), f"byte {at}"


def _outcome(data: bytes) -> str:
    try:
        return ir.checksum(ir.load(data))
    except ModelError as error:
        return type(error).__name__


def _outcome_of_protobuf(data: bytes) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carve, "CARVED", 1 << 30)
        return _outcome(data)


def test_data_that_do_not_fit_the_shape_are_refused() -> None:
    proto = raw_proto()
    proto.graph.initializer[0].raw_data += b"1234"
    assert _outcome(proto.SerializeToString()) == _outcome_of_protobuf(proto.SerializeToString())
    proto.graph.initializer[0].raw_data = b"1234"
    with pytest.raises(ModelError, match=r"\bw\b"):
        ir.load(proto.SerializeToString())


def test_an_initializer_that_is_there_twice(path: Path) -> None:
    proto = raw_proto()
    proto.graph.initializer.append(proto.graph.initializer[0])
    data = proto.SerializeToString()
    assert _outcome(data) == _outcome_of_protobuf(data)


# The file while it is used


def test_a_file_that_is_replaced_stays_readable(path: Path) -> None:
    model, other = ir.load(path), path.with_name("other")
    other.write_bytes(b"something else")
    os.replace(other, path)
    assert {t.name: t.numpy().ravel().tolist() for t in ir.tensors(model)} == OUTSIDE


@pytest.mark.parametrize("data", [b"", b"something else"])
def test_a_file_that_is_written_in_place_is_refused(path: Path, data: bytes) -> None:
    model = ir.load(path)
    path.write_bytes(data)
    for use in (
        lambda: ir.array(model.graph.initializers["w"]),
        lambda: ir.save(model, path.with_name("out.onnx")),
        lambda: ir.to_bytes(model),
        lambda: ir.checksum(model),
    ):
        with pytest.raises(ModelError, match="was changed while it was in use; load it again"):
            use()
    assert not path.with_name("out.onnx").exists()


def test_the_file_is_closed_with_the_last_tensor(path: Path) -> None:
    def handles() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    before = handles()
    model = ir.load(path)
    assert handles() > before or not before
    tensor = model.graph.initializers["w"].const_value
    del model
    assert tensor is not None
    assert tensor.numpy().tolist() == [[1, 2, 3], [4, 5, 6]]
    del tensor
    assert handles() == before


def test_a_weight_of_another_size_than_it_says_is_not_written(tmp_path: Path) -> None:
    model = ir.load(raw_proto())
    wrong = ir.LazyTensor(
        lambda: ir.make_tensor(np.zeros(5, np.float32), "w"),
        ir.DataType.FLOAT,
        ir.Shape([2, 3]),
        name="w",
    )
    model.graph.initializers["w"].const_value = wrong
    with pytest.raises(ModelError, match="the weight 'w' has 20 bytes; expected 24"):
        ir.save(model, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_over_two_gigabytes_are_refused(tmp_path: Path) -> None:
    model = ir.load(raw_proto())
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1 << 15, 1 << 15), (0, 0))
    model.graph.initializers["w"].const_value = ir.Tensor(huge, name="w")
    with pytest.raises(ModelError, match=r"4.3 GB, a proto holds 2 GB; save its weights as ext"):
        ir.save(model, tmp_path / "m.onnx", external=False)


MEMORY = """
import sys
from pathlib import Path
from onnxslim import ir

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024

before = peak()
ir.save(ir.load(sys.argv[1]), sys.argv[1] + ".out")
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_weights_take_no_memory_on_their_way(tmp_path: Path) -> None:
    """128 MB of weights; 40 MB are enough for all of loading and saving."""
    text = "".join(f"v{i + 1} = MatMul(v{i}, w{i})\n" for i in range(8))
    ones = ", ".join(f"float[1] w{i} = {{1}}" for i in range(8))
    model = ir.parse_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 2048] v0) => (float[N, 2048] v8) <{ones}> {{ {text} }}"""
    )
    editor, weight = ir.Editor(model), np.zeros((2048, 2048), np.float32)
    for name in [f"w{i}" for i in range(8)]:
        tensor = ir.make_tensor(weight, name)
        editor.replace_initializer(model.graph.initializers[name], tensor)
    ir.save(model, tmp_path / "m.onnx", external=False)
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "m.onnx")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(run.stdout) <= 40
    assert (tmp_path / "m.onnx.out").stat().st_size >= 8 * weight.nbytes


# Framing


def test_numbers_and_fields() -> None:
    for number in (0, 1, 127, 128, 300, 2**31, 2**63, 2**64 - 1):
        encoded = memoryview(as_varint(number) + b"x")
        assert varint(encoded, 0) == (number, len(encoded) - 1)
    assert field_at(memoryview(b"\x2a\x02ab"), 0, 4) == (5, 2, 2, 4)


@pytest.mark.parametrize(
    "data", [b"\x80", b"\xff" * 11, b"\x2a\x03ab", b"\x2b", b"\x02\x00", b"\x0d\x00", b"\x09\x00"]
)
def test_broken_framing_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        field_at(memoryview(data), 0, len(data))


def test_a_file_that_cannot_be_mapped_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise OSError(19, "No such device")

    monkeypatch.setattr("mmap.mmap", refuse)
    model = ir.load(path)
    path.unlink()
    assert {t.name: t.numpy().ravel().tolist() for t in ir.tensors(model)} == OUTSIDE
    ir.save(model, path)
    assert ModelProto.FromString(path.read_bytes()) == ir.to_proto(ir.load(raw_proto()))


def test_a_copy_that_the_kernel_refuses_is_made_by_hand(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    ir.save(ir.load(path), path)
    assert ModelProto.FromString(path.read_bytes()) == ir.to_proto(ir.load(raw_proto()))
