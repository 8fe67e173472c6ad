"""The command line of the other onnxslim, `onnxslim IN OUT` with its flags, answered here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.cli import main
from onnxslim.report.record import Report
from tests.small import TEXT

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model."""
    ir.save(ir.parse_text(TEXT), tmp_path / "in.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shapes(path: str) -> list[list[object]]:
    graph = ir.load(path).graph
    ends = (*graph.inputs, *graph.outputs)
    return [[d if isinstance(d, int) else d.value for d in v.shape or ()] for v in ends]


def test_no_check_runs_nothing(capsys: Captured) -> None:
    assert main(["in.onnx", "out.onnx", "--no-check", "--report", "r.json"]) == 0
    assert [n.op_type for n in ir.load("out.onnx").graph] == ["Gemm"]
    shown = " ".join(capsys.readouterr().out.split())
    assert "Not checked: nothing was run" in shown
    assert "nodes 3 1 2 fewer" in shown
    assert "latency" not in shown
    report = Report.from_json(Path("r.json").read_text())
    assert (report.check, report.latency_ms.before, report.pipeline) == (None, None, "simplify")
    assert report.nodes.before == {"Add": 2, "MatMul": 1}
    assert report.nodes.after == {"Gemm": 1}


def test_no_check_imports_no_runtime_and_quiet_no_tables() -> None:
    ir.save(ir.parse_text(TEXT.replace("Add(b, b)", "Identity(b)")), "in.onnx")
    code = (
        "import sys; from onnxslim.cli import main\n"
        "assert main(['in.onnx', 'out.onnx', '--no-check', '--quiet']) == 0\n"
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"onnxruntime", "scipy", "rich"} & set(ran.stdout.split())


def test_input_shapes_and_outputs(capsys: Captured) -> None:
    flags = ["--input-shapes", "x:2,4", "--outputs", "t", "--no-check"]
    assert main(["in.onnx", "out.onnx", *flags]) == 0
    assert shapes("out.onnx") == [[2, 4], [2, 3]]
    assert [v.name for v in ir.load("out.onnx").graph.outputs] == ["t"]
    assert main(["in.onnx", "two.onnx", "--outputs", "y,t", "--no-check", "--quiet"]) == 0
    assert [v.name for v in ir.load("two.onnx").graph.outputs] == ["y", "t"]
    assert main(["in.onnx", "cut.onnx", "--inputs", "t", "--outputs", "y:fp16", "--quiet"]) == 0
    cut = ir.load("cut.onnx").graph
    assert [v.name for v in cut.inputs] == ["t"]
    assert cut.outputs[0].dtype == ir.DataType.FLOAT16


def test_the_same_from_a_file() -> None:
    Path("c.toml").write_text(
        'check = false\noutputs = ["t"]\nexternal = false\n[input-shapes]\nx = [2, 4]\n'
    )
    assert main(["in.onnx", "out.onnx", "--config", "c.toml", "--quiet"]) == 0
    assert shapes("out.onnx") == [[2, 4], [2, 3]]


def test_all_flags_of_the_other_are_taken() -> None:
    np.save("x.npy", np.zeros((3, 4), np.float32))
    flags = [
        *("--no-shape-infer", "--skip-optimizations", "weight_tying", "dead_node_elimination"),
        *("--skip-fusion-patterns", "FusionGemm", "EliminationSlice", "--model-check"),
        *("--model-check-inputs", "x:x.npy", "--save-as-external-data", "--verbose"),
        *("--input-shapes", "x:-1,4", "--outputs", "y", "--inputs", "x:fp32"),
    ]
    assert main(["in.onnx", "out.onnx", *flags]) == 0
    assert [n.op_type for n in ir.load("out.onnx").graph] == ["MatMul", "Add"]


def test_half_precision(capsys: Captured) -> None:
    assert main(["in.onnx", "out.onnx", "--dtype", "fp16", "--report", "r.json"]) == 0
    graph = ir.load("out.onnx").graph
    assert Report.from_json(Path("r.json").read_text()).nodes.after == {"Gemm": 1}
    assert {v.dtype for v in (*graph.inputs, *graph.outputs, *graph.initializers.values())} == {
        ir.DataType.FLOAT16
    }
    assert "Cast" not in [n.op_type for n in graph]


@pytest.mark.parametrize("flags", [[], ["--inspect"]])
def test_a_model_alone_is_shown(flags: list[str], capsys: Captured) -> None:
    assert main(["in.onnx", *flags]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "input x float32 [N, 4]" in shown
    assert "Add 2 MatMul 1" in shown
    assert "nodes 3" in shown


def test_models_side_by_side(capsys: Captured) -> None:
    assert main(["in.onnx", "out.onnx", "--no-check", "--quiet"]) == 0
    assert main(["--inspect", "in.onnx", "out.onnx", "in.onnx", "--dump-to-disk"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "nodes 3 1 3" in shown
    assert Path("out.onnx_model_info.csv").read_text().count("\n") == 2


def test_rules_are_listed(capsys: Captured) -> None:
    assert main(["--list-rules"]) == 0
    shown = capsys.readouterr().out
    assert "batchnorm" in shown
    assert "Constant -> initializer" in shown


def test_dash_v_is_the_version(capsys: Captured) -> None:
    assert main(["-v"]) == 0
    assert capsys.readouterr().out == "0.1.0\n"


def test_shapes_that_the_model_does_not_run_with(capsys: Captured) -> None:
    model = ir.parse_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 1, 4, 4] x) => (float[N, 2, 4, 4] y)'
        "<float[2, 1, 1, 1] w = {1, 2}> { y = Conv(x, w) }"
    )
    ir.save(model, "conv.onnx")
    assert main(["conv.onnx", "out.onnx", "--input-shapes", "x:1,3,4,4"]) == 1
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("error: --input-shapes x:1,3,4,4: no made-up input runs")
    assert not Path("out.onnx").exists()


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--skip-fusion-patterns", "FusionGem"], 2, "no fusion pattern 'FusionGem'; did you"),
        (["--skip-optimizations", "folding"], 2, "no optimization 'folding'"),
        (["--size-threshold", "9", "--passes", "fold"], 2, "go without --passes"),
        (["--model-check", "--no-check"], 2, "contradict each other"),
        (["--dump-to-disk"], 2, "--dump-to-disk is for --inspect"),
        (["more.onnx"], 2, "got more.onnx as well"),
        (["--dtype", "int8"], 1, "--dtype int8: expected one of fp16"),
        (["--no-check", "--metric", "top1"], 1, "--no-check does not go with --metric"),
        (["--no-check", "--passes", "check"], 1, "does not go with the pass 'check'"),
        (["--input-shapes", "x:1,a"], 1, "expected whole numbers, for example 1,3,224,224"),
        (["--input-shapes", "x"], 1, "expected NAME:SIZES, for example x:1,3,224,224"),
        (["--input-shapes", "X:2,4"], 1, "no input 'X': did you mean 'x'?"),
        (["--input-shapes", "x:2,4", "x:3,4"], 1, "'x' is given twice"),
        (["--outputs", "y,T"], 1, "outputs: no value 'T': did you mean 't'?"),
        (["--inputs", "Q"], 1, "inputs: no value 'Q'. There is: x, y, "),
        (["--outputs", "T"], 1, "outputs: no value 'T': did you mean 't'?"),
    ],
)
def test_what_cannot_be(capsys: Captured, flags: list[str], code: int, message: str) -> None:
    assert main(["in.onnx", "out.onnx", *flags]) == code
    shown = capsys.readouterr().err
    assert (shown.count("\n"), message in shown) == (1, True), shown
    assert not Path("out.onnx").exists()
