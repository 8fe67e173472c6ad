"""Sessions: extra outputs, every element type, large and external weights, clear failures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
import onnxruntime
import pytest

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.runtime.serialize import serialize
from onnxslim.runtime.session import (
    Optimize,
    TensorInfo,
    input_infos,
    open_part,
    open_session,
    optimized_graph,
)

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.foo" : 1, "com.microsoft" : 1]>'
LATE = '<ir_version: 10, opset_import: ["" : 21]>'
CHAIN = (
    HEAD
    + """
g (float[N, 3] x) => (float[N, 3] y) <float[3] c = {1.0, 2.0, 3.0}>
{ a = Mul(x, c)
  s = SequenceConstruct(a)
  b = Neg(a)
  y = Exp(b) }"""
)
X = np.array([[1, 2, 3], [0, -1, 0.5]], np.float32)


def test_a_part_is_what_the_values_named_depend_on_and_its_threads_sleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened, runtime = list[str](), cast("Any", onnxruntime)
    real = runtime.InferenceSession

    def watched(source: bytes, options: Any, **more: Any) -> Any:
        opened.append(options.get_session_config_entry("session.intra_op.allow_spinning"))
        return real(source, options, **more)

    monkeypatch.setattr(runtime, "InferenceSession", watched)
    part = open_part(ir.parse_text(CHAIN), ["b"], threads=2)
    assert part.outputs == ("b",)
    assert np.array_equal(part.run({"x": X})["b"], -X * [1, 2, 3])
    assert opened == ["0"]


def test_extra_outputs_are_any_values_of_the_main_graph_each_once() -> None:
    model = ir.parse_text(CHAIN)
    session = open_session(model, extra_outputs=["b", "c", "x", "s", "y", "b"])
    assert session.outputs == ("y", "b", "c", "x", "s")
    out = session.run({"x": X})
    assert np.array_equal(out["b"], -X * [1, 2, 3])
    assert np.array_equal(out["c"], [1, 2, 3])
    assert np.array_equal(out["x"], X)
    assert np.array_equal(out["s"][0], X * [1, 2, 3])


def test_the_model_is_left_as_it_was() -> None:
    model = ir.parse_text(CHAIN)
    open_session(model, extra_outputs=["b"])
    assert [v.name for v in model.graph.outputs] == ["y"]


def test_unknown_extra_output_is_told() -> None:
    with pytest.raises(ValueError, match="no value 'nope' in the main graph"):
        open_session(ir.parse_text(CHAIN), extra_outputs=["nope"])


def test_run_gives_the_outputs_asked_for_and_ignores_what_is_no_input() -> None:
    session = open_session(ir.parse_text(CHAIN), extra_outputs=["b"])
    out = session.run({"x": X, "labels": np.arange(2)}, ["b"])
    assert list(out) == ["b"]


def test_input_infos_come_from_the_model() -> None:
    text = """<ir_version: 3, opset_import: ["" : 10]>
    g (float[N, 3] x, float[3] c, seq(int64[2]) q, bfloat16 s, string[1] t) => (float[N, 3] y)
    <float[3] c = {1.0, 2.0, 3.0}> { y = Mul(x, c) }"""
    x, c, q, s, t = input_infos(ir.parse_text(text))
    assert x == TensorInfo("x", np.dtype(np.float32), ("N", 3))
    assert c.optional
    assert q == TensorInfo("q", np.dtype(np.int64), (2,), sequence=True)
    assert (s.dtype, s.shape) == (ml_dtypes.bfloat16, ())
    assert t.dtype == object


def test_default_of_an_input_may_be_overridden() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x, float[2] c) => (float[2] y) <float[2] c = {1.0, 2.0}> { y = Mul(x, c) }"""
    session = open_session(ir.parse_text(text))
    x = np.array([3, 4], np.float32)
    assert session.run({"x": x})["y"].tolist() == [3, 8]
    assert session.run({"x": x, "c": x})["y"].tolist() == [9, 16]


def test_sequences_strings_and_absent_optionals() -> None:
    text = (
        HEAD
        + """
    g (seq(float[M]) q, string[2] t, optional(float[2]) o) => (float[K] y, string[2] u, bool h)
    { y = ConcatFromSequence<axis = 0>(q) u = Identity(t) h = OptionalHasElement(o) }"""
    )
    session = open_session(ir.parse_text(text))
    parts = [np.ones(2, np.float32), np.zeros(1, np.float32)]
    feed: dict[str, Any] = {"q": parts, "t": np.array(["a", "é"], object)}
    out = session.run(feed)
    assert out["y"].tolist() == [1, 1, 0]
    assert out["u"].tolist() == ["a", "é"]
    assert not out["h"]


@pytest.mark.parametrize(
    ("onnx_type", "dtype"),
    [
        ("bfloat16", ml_dtypes.bfloat16),
        ("float8e4m3fn", ml_dtypes.float8_e4m3fn),
        ("float8e5m2", ml_dtypes.float8_e5m2),
        ("float16", np.float16),
        ("uint64", np.uint64),
        ("bool", np.bool_),
    ],
)
def test_every_whole_byte_type_goes_in_and_comes_out(onnx_type: str, dtype: type[Any]) -> None:
    model = ir.parse_text(
        LATE + f"g ({onnx_type}[2, 2] x) => ({onnx_type}[2, 2] y) {{ y = Identity(x) }}"
    )
    x: ir.Array = np.array([[0, 1], [2, 3]], dtype)
    y = open_session(model).run({"x": x})["y"]
    assert y.dtype == x.dtype
    assert np.array_equal(y.astype(np.float64), x.astype(np.float64))


@pytest.mark.parametrize(
    ("number", "onnx_type", "dtype", "values"),
    [(22, "int4", ml_dtypes.int4, [-8, 7, -1]), (21, "uint4", ml_dtypes.uint4, [0, 15, 9])],
)
def test_four_bit_values_are_unpacked_and_packed(
    number: int, onnx_type: str, dtype: type[Any], values: list[int]
) -> None:
    text = LATE + f"g (float[3] x) => ({onnx_type}[3] y) {{ y = Cast<to = {number}>(x) }}"
    y = open_session(ir.parse_text(text)).run({"x": np.array(values, np.float32)})["y"]
    assert y.dtype == dtype
    assert y.astype(np.int32).tolist() == values
    back = ir.parse_text(LATE + f"g ({onnx_type}[3] x) => (float[3] y) {{ y = Cast<to = 1>(x) }}")
    assert open_session(back).run({"x": y})["y"].tolist() == values


@pytest.mark.parametrize(
    ("body", "operator"),
    [("y = com.foo.Bar(x)", "com.foo::Bar"), ("y = com.microsoft.Nope(x)", "com.microsoft::Nope")],
)
def test_a_missing_operator_is_named(body: str, operator: str) -> None:
    model = ir.parse_text(HEAD + f"g (float[N] x) => (float[N] y) {{ {body} }}")
    with pytest.raises(RuntimeUnavailable, match=f"no operator {operator}, which the model uses"):
        open_session(model)


def test_a_missing_kernel_is_named() -> None:
    text = "g (double[1, 1, 4] x) => (double[1, 1, 1] y) { y = Conv(x, x) }"
    model = ir.parse_text(HEAD + text)
    with pytest.raises(RuntimeUnavailable, match=r"no kernel of Conv \(version 11\) for the types"):
        open_session(model)


def test_a_failing_run_is_one_line() -> None:
    session = open_session(ir.parse_text(CHAIN))
    with pytest.raises(RuntimeUnavailable, match="cannot run the model") as caught:
        session.run({"x": X[:, :2]})
    assert "\n" not in str(caught.value)


def _weighty() -> ir.Model:
    """A MatMul and an Add whose weights are in memory: 16 KiB and 256 bytes."""
    text = """g (float[N, 64] x, float[64, 64] w, float[64] b) => (float[N, 64] y)
    { a = MatMul(x, w) y = Add(a, b) }"""
    model = ir.parse_text(LATE + text)
    rng = np.random.default_rng(0)
    while len(model.graph.inputs) > 1:
        value = model.graph.inputs.pop()
        assert value.shape is not None
        content = rng.normal(size=value.shape.numpy()).astype(np.float32)
        value.const_value = ir.Tensor(content, name=value.name)
        model.graph.register_initializer(value)
    return model


def _externalized(model: ir.Model, folder: Path) -> ir.Model:
    """The same model with each weight in a data file of its own, in different folders."""
    model = ir.snapshot(model)
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        assert tensor is not None
        base = folder / name
        base.mkdir()
        (base / "data.bin").write_bytes(bytes(64) + tensor.tobytes())
        value.const_value = ir.ExternalTensor(
            "data.bin",
            64,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
            base_dir=base,
        )
    return model


ROW = np.linspace(-1, 1, 64, dtype=np.float32)[None]


def test_external_weights_are_read_where_they_lie(tmp_path: Path) -> None:
    model = _weighty()
    expected = open_session(model).run({"x": ROW})["y"]
    external = _externalized(model, tmp_path)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    source = serialize(external)
    assert source.folder == str(tmp_path)
    assert len(source.data) < 1000
    assert np.array_equal(open_session(external).run({"x": ROW})["y"], expected)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_external_weights_behind_a_linked_folder(tmp_path: Path) -> None:
    model = _weighty()
    (tmp_path / "real").mkdir()
    external = _externalized(model, tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    for value in external.graph.initializers.values():
        assert isinstance(value.const_value, ir.ExternalTensor)
        value.const_value.base_dir = os.fspath(value.const_value.base_dir).replace("real", "link")
    expected = open_session(model).run({"x": ROW})["y"]
    assert np.array_equal(open_session(external).run({"x": ROW})["y"], expected)


@pytest.mark.parametrize("optimize", ["none", "basic", "extended", "all"])
@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "int8"])
def test_weights_of_a_model_file_are_read_from_it_at_any_offset(
    tmp_path: Path, kind: str, optimize: Optimize
) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-99, 99, (128, 256)).astype(kind)
    model = ir.parse_text(
        LATE + "g (float[N, 128] x, float[128, 256] u) => (float[N, 256] y) { y = MatMul(x, u) }"
    )
    editor = ir.Editor(model)
    (product,) = model.graph
    w = editor.initializer(model.graph, "w", weight)
    cast = editor.node("Cast", [w], outputs=["c"], attributes={"to": 1})
    editor.insert_before(product, [cast])
    editor.rewire([(product, 1)], cast.outputs[0])
    model.graph.inputs.pop()
    x = rng.normal(size=(3, 128)).astype(np.float32)
    expected = open_session(model, optimize=optimize).run({"x": x})["y"]
    for shift in range(4):  # the name of the graph moves what comes after it
        model.graph.name = "g" * (shift + 1)
        path = tmp_path / f"{shift}.onnx"
        ir.save(model, path)
        read = ir.load(path)
        source = serialize(read)
        assert source.folder == str(tmp_path)
        assert len(source.data) < 1000
        assert np.array_equal(open_session(read, optimize=optimize).run({"x": x})["y"], expected)


def test_weights_of_a_model_file_that_was_replaced_are_still_those_of_the_old_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.onnx"
    ir.save(_weighty(), path)
    read = ir.load(path)
    expected = open_session(read).run({"x": ROW})["y"]
    path.unlink()
    assert serialize(read).folder is None
    assert np.array_equal(open_session(read).run({"x": ROW})["y"], expected)
    path.write_bytes(b"another file")
    assert serialize(read).folder is None
    assert np.array_equal(open_session(read).run({"x": ROW})["y"], expected)


def test_weights_too_large_for_the_bytes_go_to_a_temporary_file_that_is_removed() -> None:
    model = _weighty()
    source = serialize(model, inline_limit=1000)
    assert source.keep is not None
    folder = source.keep.path
    assert (folder / "weights").stat().st_size == 64 * 64 * 4  # the bias is small and stays inside
    assert len(source.data) < 1000
    assert isinstance(model.graph.initializers["w"].const_value, ir.Tensor)
    del source
    assert not folder.exists()


def test_a_model_with_spilled_weights_runs_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _weighty()
    expected = open_session(model).run({"x": ROW})["y"]
    half = _externalized(model, tmp_path)
    half.graph.initializers["w"].const_value = model.graph.initializers["w"].const_value
    monkeypatch.setattr("onnxslim.runtime.serialize.INLINE_LIMIT", 1000)
    for variant in (model, half):
        out = open_session(variant, extra_outputs=["a"]).run({"x": ROW})
        assert np.array_equal(out["y"], expected)
        assert out["a"].shape == (1, 64)


def test_optimized_graph_is_what_the_runtime_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        LATE
        + """g (float[1, 4] x) => (float[1, 4] y)
    { a = Identity(x) b = Identity(a) y = Relu(b) }"""
    )
    model = ir.parse_text(text)
    assert [n.op_type for n in optimized_graph(model).graph] == ["Relu"]
    assert len(list(model.graph)) == 3
    monkeypatch.setattr("onnxslim.runtime.serialize.INLINE_LIMIT", 1000)
    fused = optimized_graph(_weighty())
    weights = [v.const_value for v in fused.graph.initializers.values()]
    assert any(w is not None and w.numpy().shape == (64, 64) for w in weights)
