"""`onnxslim.slim`: the call, the arguments and the return values of the other onnxslim."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxslim
from onnxslim import errors, ir
from onnxslim.runtime.session import open_session

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x) => (float[N, 3] y)
<float[4, 3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}, float[3] b = {0.5, 0.25, 0}> {
  i = Identity(x)
  c = Add(b, b)
  t = MatMul(i, w)
  r = Relu(t)
  y = Add(r, c)
}
"""

PARAMETERS = [
    *("model", "output_model", "model_check", "input_shapes", "inputs", "outputs"),
    *("no_shape_infer", "skip_optimizations", "dtype", "skip_fusion_patterns", "size_threshold"),
    *("inspect", "dump_to_disk", "save_as_external_data", "model_check_inputs", "verbose"),
]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def model() -> ir.Model:
    return ir.parse_text(TEXT)


@pytest.fixture
def proto(model: ir.Model) -> Any:
    return ir.to_proto(model)


@pytest.fixture
def path(model: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    ir.save(model, tmp_path / "in.onnx")
    return "in.onnx"


def ops(given: Any) -> list[str]:
    return [node.op_type for node in ir.load(given).graph]


def output(given: Any, dtype: Any = np.float32) -> Any:
    x = np.arange(8).reshape(2, 4).astype(dtype) - 3
    (result,) = open_session(ir.load(given)).run({"x": x}).values()
    return result


def test_the_parameters_are_those_of_the_other() -> None:
    parameters = inspect.signature(onnxslim.slim).parameters
    assert list(parameters) == PARAMETERS
    defaults = {name: p.default for name, p in parameters.items() if name != "model"}
    assert all(value in (None, False) for value in defaults.values())
    slim: Any = onnxslim.slim
    with pytest.raises(TypeError, match="no_such_thing"):
        slim(b"", no_such_thing=1)


@pytest.mark.parametrize("kind", ["bytes", "proto", "model", "gs"])
def test_it_returns_the_kind_it_was_given(kind: Any, model: ir.Model) -> None:
    given = ir.to_kind(model, kind)
    before = ir.checksum(ir.load(given))
    result = onnxslim.slim(given)
    assert type(result) is type(given)
    assert ops(result) == ["MatMul", "Relu", "Add"]
    assert ir.checksum(ir.load(given)) == before
    np.testing.assert_array_equal(output(result), output(given))


def test_a_path_gives_a_proto(path: str, proto: Any) -> None:
    result = onnxslim.slim(path)
    assert type(result) is type(proto)
    assert ops(result) == ["MatMul", "Relu", "Add"]


def test_what_is_saved_is_not_returned(path: str, capsys: Captured) -> None:
    assert onnxslim.slim(path, "out.onnx") is None
    assert ops("out.onnx") == ["MatMul", "Relu", "Add"]
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()]
    assert shown[0] == ["in.onnx", "out.onnx"]
    rows = {line[0]: line[1:] for line in shown}
    assert (rows["Identity"], rows["Add"], rows["nodes"]) == (["1", "0"], ["2", "1"], ["5", "3"])
    assert len(rows["seconds"]) == 1


def test_nothing_is_printed_otherwise(proto: Any, capsys: Captured) -> None:
    onnxslim.slim(proto)
    assert capsys.readouterr() == ("", "")
    onnxslim.slim(proto, verbose=True)
    assert "simplify" in capsys.readouterr().out


def test_a_list_is_shown_side_by_side(path: str, proto: Any, capsys: Captured) -> None:
    assert onnxslim.slim([path, onnxslim.slim(proto)], dump_to_disk=True) is None
    shown = capsys.readouterr().out
    assert "in.onnx" in shown
    assert "OnnxModel" in shown
    rows = Path("in.onnx_model_info.csv").read_text().splitlines()
    assert rows[0] == "NodeName,OpType,OutputDtype,OutputShape"
    assert [row.split(",")[1] for row in rows[1:]] == ["Identity", "Add", "MatMul", "Relu", "Add"]
    assert rows[-1].endswith(',Add,float,"[N, 3]"')


@pytest.mark.parametrize("shapes", [["x:2,4"], {"x": [2, 4]}])
def test_input_shapes(proto: Any, shapes: Any) -> None:
    result = ir.load(onnxslim.slim(proto, input_shapes=shapes))
    assert [list(v.shape or ()) for v in (*result.graph.inputs, *result.graph.outputs)] == [
        [2, 4],
        [2, 3],
    ]


def test_inputs_and_outputs(proto: Any) -> None:
    assert ops(onnxslim.slim(proto, outputs=["t"])) == ["MatMul"]
    result = ir.load(onnxslim.slim(proto, inputs=["t:fp32"], outputs=["y"]))
    assert [v.name for v in result.graph.inputs] == ["t"]
    assert [n.op_type for n in result.graph] == ["Relu", "Add"]


def test_types_of_inner_values_are_written(proto: Any) -> None:
    told = {v.name for v in onnxslim.slim(proto).graph.value_info}
    assert {"t", "r"} <= told
    bare = onnxslim.slim(proto, no_shape_infer=True)
    assert not {"t", "r"} & {v.name for v in bare.graph.value_info}


@pytest.mark.parametrize("dtype", ["fp16", "float16"])
def test_half_precision_and_back(proto: Any, dtype: str) -> None:
    half = onnxslim.slim(proto, dtype=dtype, model_check=True)
    assert output(half, np.float16).dtype == np.float16
    np.testing.assert_array_equal(output(half, np.float16), output(proto).astype(np.float16))
    single = onnxslim.slim(half, dtype="fp32")
    assert output(single).dtype == np.float32
    np.testing.assert_array_equal(output(single), output(proto))


def test_an_unknown_type_is_refused(proto: Any) -> None:
    with pytest.raises(errors.ConfigError, match="--dtype int8: expected one of fp16, float16"):
        onnxslim.slim(proto, dtype="int8")


def test_steps_can_be_left_out(proto: Any) -> None:
    from onnxslim.peer_names import STEPS

    assert ops(onnxslim.slim(proto, skip_optimizations=list(STEPS))) == ops(proto)
    left = onnxslim.slim(proto, skip_optimizations=["constant_folding"])
    assert ops(left) == ["Add", "MatMul", "Relu", "Add"]
    left = onnxslim.slim(proto, skip_optimizations=["dead_node_elimination"])
    assert "Identity" in ops(left)
    left = onnxslim.slim(proto, skip_optimizations=["graph_fusion"])
    assert ops(left) == ["MatMul", "Relu", "Add"]


def test_names_that_nobody_knows_warn(proto: Any) -> None:
    with pytest.warns(UserWarning, match="no fusion pattern 'FusionGem'; did you mean 'FusionGem"):
        onnxslim.slim(proto, skip_fusion_patterns=["FusionGem"])
    with pytest.warns(UserWarning, match="no optimization 'fold'"):
        onnxslim.slim(proto, skip_optimizations=["fold"])


def test_the_patterns_of_the_other_are_known(proto: Any) -> None:
    from onnxslim.passes.simplify.rules import list_rules
    from onnxslim.peer_names import PATTERNS, STEPS, skipped_rules

    assert skipped_rules((), ["FusionConvBN"]) == ("batchnorm",)
    assert skipped_rules(["weight_tying"], ["erf-gelu"]) == ("equal-initializers", "erf-gelu")
    known = {rule.name for rule in list_rules()}
    assert {rule for rules in STEPS.values() for rule in rules} <= known
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        onnxslim.slim(proto, skip_fusion_patterns=list(PATTERNS))


def test_the_check_compares_outputs(proto: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ops(onnxslim.slim(proto, model_check=True)) == ["MatMul", "Relu", "Add"]

    def spoil(self: Any, model: ir.Model, ctx: Any) -> onnxslim.PassResult:
        weight = model.graph.initializers["w"]
        ir.Editor(model).replace_initializer(weight, np.asarray(ir.array(weight)) + 0.1)
        return onnxslim.PassResult(onnxslim.Aspect.WEIGHTS)

    monkeypatch.setattr("onnxslim.passes.simplify.simplify.Simplify.run", spoil)
    with pytest.warns(UserWarning, match="returns None: the check failed"):
        assert onnxslim.slim(proto, model_check=True) is None


def test_inputs_for_the_check(path: str) -> None:
    np.save("x.npy", np.zeros((3, 4), np.float32))
    for given in ("x:2,4", "x:x.npy"):
        assert onnxslim.slim(path, model_check=True, model_check_inputs=[given]) is not None
    with pytest.raises(errors.ConfigError, match="no input 'q'"):
        onnxslim.slim(path, model_check=True, model_check_inputs=["q:2,4"])
    with pytest.raises(errors.DataError, match=r"x: none.npy: cannot be read as an .npy file"):
        onnxslim.slim(path, model_check=True, model_check_inputs=["x:none.npy"])


def test_external_data(path: str) -> None:
    onnxslim.slim(_wide(), "wide.onnx", save_as_external_data=True)
    assert Path("wide.onnx.data").stat().st_size >= 4 * 512 * 512


def _wide() -> ir.Model:
    model = ir.parse_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 512] x, float[512, 512] w) => '
        "(float[N, 512] y) { y = MatMul(x, w) }"
    )
    value = model.graph.inputs.pop()
    value.const_value = ir.make_tensor(np.ones((512, 512), np.float32), "w")
    model.graph.register_initializer(value)
    return model


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(errors.ModelError, match="got a int; expected a path, bytes"):
        onnxslim.slim(7)
    with pytest.raises(errors.ModelError, match="no such file"):
        onnxslim.slim("none.onnx")


def test_without_a_check_nothing_is_run(path: str) -> None:
    ir.save(ir.parse_text(TEXT.replace("Add(b, b)", "Identity(b)")), path)
    code = (
        "import sys, onnxslim; m = onnxslim.slim('in.onnx')\n"
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"onnxruntime", "scipy", "rich", "cyclopts"} & set(ran.stdout.split())
