"""The command line as a user meets it: results, exit codes, what is printed where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.cli import main
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import PassResult
from onnxslim.report.record import Report
from tests.small import TEXT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model and samples."""
    ir.save(ir.parse_text(TEXT), tmp_path / "in.onnx")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 4)).astype(np.float32)
    labels = (x[:, :3] + [1.0, 0.5, 0.0]).argmax(axis=1)  # x[:, 3] moves all scores alike
    np.savez(tmp_path / "data.npz", x=x)
    np.savez(tmp_path / "eval.npz", x=x, labels=labels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Captured = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]


def test_without_passes_it_simplifies_and_checks(folder: Path, capsys: Captured) -> None:
    assert main(["in.onnx", "out.onnx"]) == 0
    assert [n.op_type for n in ir.load("out.onnx").graph] == ["Gemm"]
    shown = capsys.readouterr()
    assert "Accuracy was not verified" in " ".join(shown.out.split())
    assert "--calib" in shown.out
    assert shown.err.splitlines()[0].startswith("[1/2] simplify: ")
    assert "\x1b" not in shown.out + shown.err


def test_quiet_prints_nothing(folder: Path, capsys: Captured) -> None:
    assert main(["in.onnx", "out.onnx", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_report_tells_all(folder: Path) -> None:
    flags = ["--passes", "fold", "--calib", "data.npz", "--eval", "eval.npz", "--metric", "top1"]
    assert main(["in.onnx", "out.onnx", *flags, "--max-drop", "0.01", "--report", "r.json"]) == 0
    text = Path("r.json").read_text()
    table = json.loads(text)
    report = Report.from_json(text)
    assert Report.from_json(report.to_json()) == report
    assert (table["input"], table["output"], table["target"]) == ("in.onnx", "out.onnx", "ort-cpu")
    assert table["pipeline"] == "fold,check{metric=top1 max_drop=0.01}"
    assert [p["spec"] for p in table["passes"]] == ["fold", "check{metric=top1 max_drop=0.01}"]
    assert table["passes"][0]["changed"] != []
    assert table["size"] == {
        "before": Path("in.onnx").stat().st_size,
        "after": Path("out.onnx").stat().st_size,
    }
    assert table["latency_ms"]["before"] > 0
    assert table["macs"] == {"before": 12, "after": 12}
    check = table["check"]
    assert (check["metric"], check["before"], check["after"]) == ("top1", 1.0, 1.0)
    assert (check["samples"], check["limit"], check["passed"]) == (20, 0.01, True)


def test_an_output_may_be_the_input(folder: Path) -> None:
    assert main(["in.onnx", "in.onnx"]) == 0
    assert [n.op_type for n in ir.load("in.onnx").graph] == ["Gemm"]
    assert sorted(p.name for p in folder.iterdir()) == ["data.npz", "eval.npz", "in.onnx"]


def test_a_run_that_changes_nothing_says_so(folder: Path, capsys: Captured) -> None:
    assert main(["in.onnx", "folded.onnx"]) == 0
    capsys.readouterr()
    assert main(["folded.onnx", "out.onnx"]) == 0
    assert "No pass changed the model." in capsys.readouterr().out
    assert ir.checksum(ir.load("out.onnx")) == ir.checksum(ir.load("folded.onnx"))


def test_a_toml_file_in_place_of_flags(folder: Path) -> None:
    Path("c.toml").write_text('calib = "data.npz"\nreport = "r.json"\n[[pass]]\nname = "fold"\n')
    assert main(["in.onnx", "out.onnx", "--config", "c.toml", "--seed", "7"]) == 0
    assert Report.from_json(Path("r.json").read_text()).check is not None


def test_print_pipeline(capsys: Captured) -> None:
    text = "quant{scheme=int8 per-channel},lowrank"
    flags = ["--passes", text, "--max-drop", "0.01"]
    assert main(["--print-pipeline", *flags]) == 0
    printed = capsys.readouterr().out
    assert printed == "quant{scheme=int8},lowrank,check{max_drop=0.01}\n"
    assert main(["--print-pipeline", "--passes", printed.strip()]) == 0
    assert capsys.readouterr().out == printed


def test_list_passes(capsys: Captured) -> None:
    assert main(["--list-passes"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("fold", "quant", "lowrank", "check", "per_channel", "MACs of the whole model"):
        assert part in shown


def test_version_and_help(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "0.1.0\n"
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for flag in (
        *("--passes", "--config", "--calib", "--eval", "--metric", "--max-drop", "--target"),
        *("--report", "--threads", "--seed", "--cache", "--preprocess", "--keep-best"),
        *("--allow-slower", "--dump", "--quiet", "--print-pipeline", "--list-passes"),
    ):
        assert flag in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected two files"),
        (["in.onnx", "--passes", "fold"], "expected two files"),
        (["in.onnx", "out.onnx", "--pases", "fold"], "--pases"),
        (["in.onnx", "out.onnx", "--threads", "many"], "--threads"),
        (["in.onnx", "out.onnx", "more.onnx"], "more.onnx"),
    ],
)
def test_usage_errors_are_exit_2(
    folder: Path, capsys: Captured, arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert message in shown.err
    assert not Path("out.onnx").exists()


def test_dump_keeps_every_state(folder: Path) -> None:
    assert main(["in.onnx", "out.onnx", "--dump", "states"]) == 0
    assert sorted(p.name for p in Path("states").iterdir()) == ["01-simplify.onnx", "02-check.onnx"]


def test_an_impossible_order_is_refused(folder: Path, capsys: Captured) -> None:
    assert main(["in.onnx", "out.onnx", "--passes", "check,fold"]) == 1
    assert "put it last, once" in capsys.readouterr().err


def spoil(self: object, model: ir.Model, ctx: object) -> PassResult:
    weight = model.graph.initializers["w"]
    ir.Editor(model).replace_initializer(weight, -np.asarray(ir.array(weight)))
    return PassResult(Aspect.WEIGHTS | Aspect.NUMERICS)


def test_a_failed_check_is_exit_3_and_writes_nothing(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxslim.passes.fold.fold.Fold.run", spoil)
    Path("out.onnx").write_bytes(b"old")
    flags = ["--eval", "eval.npz", "--metric", "top1", "--max-drop", "0.1", "--report", "r.json"]
    assert main(["in.onnx", "out.onnx", "--passes", "fold", *flags]) == 3
    shown = capsys.readouterr()
    last = shown.err.splitlines()[-1]
    assert last.startswith("error: the check failed: ")
    assert "the first pass over budget is 'fold'" in last
    assert "Check failed: " in shown.out
    assert Path("out.onnx").read_bytes() == b"old"
    report = Report.from_json(Path("r.json").read_text())
    assert report.check is not None
    assert not report.check.passed
    assert report.notes[-1] == "out.onnx was not written."


def test_keep_best_writes_the_last_good_state(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxslim.passes.lowrank.lowrank.Lowrank.run", spoil)
    flags = ["--passes", "fold,lowrank", "--eval", "eval.npz", "--metric", "top1"]
    more = ["--max-drop", "0.1", "--keep-best", "--allow-slower", "--report", "r.json"]
    assert main(["in.onnx", "out.onnx", *flags, *more]) == 0
    result = ir.load("out.onnx")
    assert [n.op_type for n in result.graph] == ["MatMul", "Add"]
    weight = np.asarray(ir.array(result.graph.initializers["w"]))
    assert weight.min() == 0.0
    report = Report.from_json(Path("r.json").read_text())
    assert [p.kept for p in report.passes] == [True, False, True]
    assert report.check is not None
    assert (report.check.passed, report.check.first_over_budget) == (True, "lowrank")
    assert "Kept the state before 'lowrank'" in capsys.readouterr().out


def test_a_bug_is_exit_70_with_a_reproducer(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxslim.passes.fold.fold import Fold

    def broken(self: Fold, model: ir.Model, ctx: object) -> None:
        raise IndexError("off by one")

    monkeypatch.setattr(Fold, "run", broken)
    Path("out.onnx").write_bytes(b"old")
    assert main(["in.onnx", "out.onnx", "--passes", "fold", "--dump", "d"]) == 70
    (found,) = Path("d").iterdir()
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == (
        "error: pass 'fold' failed after no other pass: IndexError: off by one; "
        f"reproducer: {found}"
    )
    assert Path("out.onnx").read_bytes() == b"old"
    assert (found / "model.onnx").exists()


def test_a_bug_outside_of_passes_has_no_traceback_either(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise IndexError("off by one")

    monkeypatch.setattr("onnxslim.driver.make_plan", broken)
    assert main(["in.onnx", "out.onnx"]) == 70
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    path = Path(shown.rpartition(" ")[2].strip())
    assert "IndexError: off by one" in path.read_text()
    path.unlink()


@pytest.mark.parametrize("given", [None, "0"])
def test_the_runtime_sends_nothing_unless_the_user_wants_it(given: str | None) -> None:
    code = (
        "import os, sys\nfrom onnxslim.cli import main\nsys.argv = ['onnxslim', '--version']\n"
        "main()\nprint(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    environment |= {} if given is None else {"ORT_DISABLE_TELEMETRY": given}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == (given or "1")


@pytest.mark.parametrize("flag", ["--seed", "--threads"])
def test_a_number_that_is_not_whole_is_not_rounded(flag: str, capsys: Captured) -> None:
    assert main(["in.onnx", "out.onnx", flag, "1.5"]) == 2
    assert f'Invalid value for {flag}: "1.5" is not a whole number' in capsys.readouterr().err


def test_an_overflow_inside_is_no_message_to_the_user() -> None:
    code = (
        "import sys, warnings\n"
        "from onnxslim.cli import main\n"
        "sys.argv = ['onnxslim', '--version']\n"
        "main()\n"
        "for module in ('onnxslim.passes.quant.grid', 'other'):\n"
        "    warnings.warn_explicit('overflow', RuntimeWarning, module + '.py', 1, module)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.splitlines() == ["other.py:1: RuntimeWarning: overflow"]


def test_streams_that_are_closed_or_of_few_characters_change_nothing(folder: Path) -> None:
    run = (sys.executable, "-m", "onnxslim", "in.onnx", "out.onnx", "--no-check", "--passes")
    started = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    model = ir.parse_text(TEXT)
    list(model.graph)[1].name = "a name with an ü"
    ir.save(model, "in.onnx")
    few = subprocess.run([*run, "quant"], capture_output=True, check=False, env=started)
    assert (few.returncode, b"a name with an ?" in few.stdout) == (0, True), few.stderr
    Path("out.onnx").unlink()
    code = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *run, "fold"], check=False, env=started
    ).returncode
    assert code == 0
    assert Path("out.onnx").exists()


@pytest.mark.parametrize(("stream", "code"), [("1", 1), ("2", 0)])
def test_a_full_disk_under_a_stream_does_not_lose_the_model(
    folder: Path, stream: str, code: int
) -> None:
    run = (sys.executable, "-m", "onnxslim", "in.onnx", "out.onnx", "--no-check")
    started = {**os.environ, "PYTHONPATH": str(ROOT)}
    shell = ("sh", "-c", f'exec "$@" {stream}>/dev/full', "sh")
    ran = subprocess.run([*shell, *run], check=False, env=started, capture_output=True, text=True)
    assert ran.returncode == code, ran.stderr
    assert Path("out.onnx").exists()
    if stream == "1":
        assert ran.stderr.splitlines()[-1] == (
            "error: the result cannot be shown: No space left on device; out.onnx was written"
        )
