"""Tensors that are computed when they are needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir


class Counted:
    """Gives an array and counts how often it was asked."""

    def __init__(self, array: ir.Array) -> None:
        self.array, self.calls = array, 0

    def __call__(self) -> ir.Array:
        self.calls += 1
        made: ir.Array = np.array(self.array)
        return made


def lazy(counted: Counted, name: str = "w") -> ir.TensorProtocol:
    return ir.lazy_tensor(counted, ir.DataType.FLOAT, counted.array.shape, name)


@pytest.fixture
def counted() -> Counted:
    return Counted(np.arange(600, dtype=np.float32).reshape(20, 30))


def model_with(tensor: ir.TensorProtocol) -> ir.Model:
    model = ir.parse_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 20] x) => (float[N, 30] y) <float[1] w = {1}> { y = MatMul(x, w) }"""
    )
    editor = ir.Editor(model)
    editor.replace_initializer(model.graph.initializers["w"], tensor)
    return model


def test_type_and_shape_are_known_without_computing(counted: Counted) -> None:
    tensor = lazy(counted)
    model = model_with(tensor)
    ir.verify(model)
    ir.fix_names(ir.snapshot(model))
    assert (tensor.dtype, tensor.nbytes, list(tensor.shape)) == (ir.DataType.FLOAT, 2400, [20, 30])
    assert ir.weight_bytes(model) == 2400
    assert counted.calls == 0


@pytest.mark.parametrize("external", [False, True])
def test_saving_computes_it_once(counted: Counted, tmp_path: Path, external: bool) -> None:
    model = model_with(lazy(counted))
    ir.save(model, tmp_path / "m.onnx", external=external)
    assert counted.calls == 1
    found = ir.array(ir.load(tmp_path / "m.onnx").graph.initializers["w"])
    np.testing.assert_array_equal(found, counted.array)


def test_it_is_kept_from_the_third_use_on(counted: Counted) -> None:
    tensor = lazy(counted)
    renamed = ir.make_tensor(tensor, "other")
    for _ in range(5):
        np.testing.assert_array_equal(tensor.numpy(), counted.array)
        assert renamed.tobytes() == counted.array.tobytes()
    assert counted.calls == 3


def test_a_wrong_result_is_refused(counted: Counted) -> None:
    tensor = ir.lazy_tensor(counted, ir.DataType.FLOAT, (30, 20), "w")
    with pytest.raises(ValueError, match=r"'w' was computed as \(20, 30\); expected \(30, 20\)"):
        tensor.numpy()
    other = ir.lazy_tensor(counted, ir.DataType.FLOAT16, (20, 30), "w")
    with pytest.raises(TypeError):
        other.numpy()
