"""Bad input: one clear line and exit 1, nothing written, all files as they were."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.cli import main
from tests.small import TEXT

Captured = pytest.CaptureFixture[str]
Arrays = Mapping[str, Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model, samples and an old output."""
    ir.save(ir.parse_text(TEXT), tmp_path / "in.onnx")
    np.savez(tmp_path / "data.npz", x=np.ones((8, 4), np.float32))
    (tmp_path / "out.onnx").write_bytes(b"an old output")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(capsys: Captured, message: str, *arguments: str) -> None:
    """Run the command line; it must fail with one line and leave everything as it was."""
    before = state(Path())
    code = main(list(arguments))
    shown = capsys.readouterr()
    errors = [x for x in shown.err.splitlines() if not x.startswith("[")]  # progress of passes
    assert code == 1, shown.err
    assert message in shown.err
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert shown.out == ""
    assert state(Path()) == before


def external_model(folder: Path, **changes: str) -> None:
    """Save the model with its weight in in.onnx.data, then change where the model looks for it."""
    model = ir.parse_text(TEXT)
    weight = ir.Tensor(np.arange(3000, dtype=np.float32).reshape(1000, 3), name="w")
    model.graph.initializers["w"].const_value = weight
    model.graph.initializers["w"].shape = ir.Shape((1000, 3))
    model.graph.inputs[0].shape = ir.Shape(("N", 1000))
    ir.save(model, folder / "in.onnx", external=True)
    data = (folder / "in.onnx").read_bytes()
    for key, value in changes.items():
        old = {"location": b"in.onnx.data"}[key]
        assert data.count(old) == 1
        new = value.encode()
        assert len(new) == len(old), "the file's lengths must stay right"
        data = data.replace(old, new)
    (folder / "in.onnx").write_bytes(data)


def no_file(folder: Path) -> None:
    (folder / "in.onnx").unlink()


def text_file(folder: Path) -> None:
    (folder / "in.onnx").write_text("this is not a model")


def lfs_pointer(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    (folder / "in.onnx").write_text(pointer)


def empty_file(folder: Path) -> None:
    (folder / "in.onnx").write_bytes(b"")


def truncated(folder: Path) -> None:
    data = (folder / "in.onnx").read_bytes()
    (folder / "in.onnx").write_bytes(data[: len(data) // 2])


def invalid_graph(folder: Path) -> None:
    data = (folder / "in.onnx").read_bytes()
    (folder / "in.onnx").write_bytes(data.replace(b"MatMul", b"MatMux"))


def unknown_input(folder: Path) -> None:
    model = ir.to_bytes(ir.parse_text(TEXT.replace("t, c", "t, cc").replace("c = ", "cc = ")))
    (folder / "in.onnx").write_bytes(model.replace(b"\x12\x02cc", b"\x12\x02zz", 1))


def no_output(folder: Path) -> None:
    model = ir.parse_text(TEXT)
    model.graph.outputs.clear()
    (folder / "in.onnx").write_bytes(ir.to_bytes(model))


def a_folder(folder: Path) -> None:
    (folder / "in.onnx").unlink()
    (folder / "in.onnx").mkdir()


def data_missing(folder: Path) -> None:
    external_model(folder)
    (folder / "in.onnx.data").unlink()


def data_short(folder: Path) -> None:
    external_model(folder)
    os.truncate(folder / "in.onnx.data", 1000)


def data_absolute(folder: Path) -> None:
    external_model(folder, location="/etc/passwd1")


def data_above(folder: Path) -> None:
    external_model(folder, location="../some.data")


def data_symlink(folder: Path) -> None:
    external_model(folder)
    outside = folder.parent / f"{folder.name}.outside"
    (folder / "in.onnx.data").rename(outside)
    (folder / "in.onnx.data").symlink_to(outside)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_file, "in.onnx: no such file"),
        (text_file, "in.onnx: the file is not an ONNX model"),
        (lfs_pointer, "not an ONNX model; it stands for one in Git LFS: run git lfs pull"),
        (empty_file, "in.onnx: the file is empty"),
        (truncated, "in.onnx: the file is truncated or damaged"),
        (invalid_graph, "MatMux"),
        (unknown_input, "invalid graph"),
        (no_output, "the model has no output, so nothing of it is needed; name one: --outputs"),
        (a_folder, "in.onnx: is a folder"),
        (data_missing, "in.onnx.data"),
        (data_short, "in.onnx.data"),
        (data_absolute, "/etc/passwd1"),
        (data_above, "../some.data"),
        (data_symlink, "in.onnx.data"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_models(
    folder: Path, capsys: Captured, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    refused(capsys, message, "in.onnx", "out.onnx")


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ("qant", "no pass 'qant'; did you mean 'quant'? there is: cast, check, distill, fold, "),
        ("quant{schem=int8}", "pass 'quant' has no option 'schem'; did you mean 'scheme'?"),
        ("quant{scheme=int3}", "option 'scheme': given 'int3', expected one of "),
        ("quant{percentile=200}", "percentile"),
        ("lowrank{ratio=2}", "ratio=2 given, expected a number between 0 and 1 (ratio: 0 to 1)"),
        ("lowrank{ratio=half}", "lowrank: option 'ratio': given 'half', expected a number"),
        ("check,fold", "'check' compares the result; put it last, once"),
    ],
)
def test_pipelines(folder: Path, capsys: Captured, passes: str, message: str) -> None:
    refused(capsys, message, "in.onnx", "out.onnx", "--passes", passes)


def test_a_syntax_error_points_at_the_fault(folder: Path, capsys: Captured) -> None:
    before = state(folder)
    assert main(["in.onnx", "out.onnx", "--passes", "fold,quant{a=}"]) == 1
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "error: expected 'key' or 'key=value'",
        "  fold,quant{a=}",
        "             ^",
    ]
    assert state(folder) == before


GOOD = np.ones((8, 4), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": GOOD}, "'x'"),
        ({"x": np.ones((8, 4, 2), np.float32)}, "x"),
        ({"x": np.ones((8, 5), np.float32)}, "x"),
        ({"x": GOOD.astype(np.int64)}, "int64"),
        ({"x": np.where(np.eye(8, 4) > 0, np.nan, GOOD)}, "NaN"),
        ({"x": np.where(np.eye(8, 4) > 0, np.inf, GOOD).astype(np.float32)}, "holds Inf"),
        ({"x": GOOD[:0]}, "no samples"),
        ({"x": GOOD[:1]}, "1 sample cannot be split"),
        ({"x": GOOD, "labels": np.zeros(5, np.int64)}, "5"),
    ],
    ids=["missing", "rank", "size", "dtype", "nan", "inf", "zero", "single", "labels"],
)
def test_samples(folder: Path, capsys: Captured, arrays: Arrays, message: str) -> None:
    np.savez("data.npz", **arrays)
    refused(capsys, message, "in.onnx", "out.onnx", "--calib", "data.npz")


@pytest.mark.parametrize("place", ["cut.npz", "samples"])
def test_a_truncated_sample_file_is_named(folder: Path, capsys: Captured, place: str) -> None:
    content = (folder / "data.npz").read_bytes()
    (folder / "samples").mkdir()
    (folder / "samples" / "0.npz").write_bytes(content)
    for cut in ("cut.npz", "samples/1.npz"):
        (folder / cut).write_bytes(content[: len(content) // 2])
    refused(capsys, "not a readable .npz file", "in.onnx", "out.onnx", "--calib", place)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--calib", "no.npz"], "no.npz: no such file"),
        (["--calib", "in.onnx"], "in.onnx: expected an .npz"),
        (["--eval", "no_module:feeds"], "no_module"),
        (["--max-drop", "0.1"], "give --eval or --calib"),
        (["--calib", "data.npz", "--metric", "top2"], "top2"),
        (["--calib", "data.npz", "--max-drop", "-1"], "expected 0 or more"),
        (["--target", "ort-cpux"], "unknown target 'ort-cpux'; did you mean 'ort-cpu'?"),
        (["--threads", "0"], "--threads 0: expected at least 1"),
        (["--config", "no.toml"], "--config no.toml: cannot be read"),
        (["--calib", ""], "--calib '': expected an .npz, a folder, or module:function"),
        (["--calib", "data.npz", "--preprocess", "size=4"], "--preprocess is for folders of imag"),
        (["--calib", "data.npz", "--metric", "top-1"], "did you mean 'top1'?"),
        (["--cache", "in.onnx"], "--cache in.onnx: '"),
        (["--dump", "in.onnx/sub"], "in.onnx' is not a folder; give the name of one"),
        (["--report", "in.onnx"], "--report in.onnx: is the input too; give another name"),
        (["--report", "sub/../out.onnx"], "out.onnx: is the output too"),
        (["--report", "data.npz", "--calib", "data.npz"], "--report data.npz: is --calib too"),
    ],
)
def test_flags(folder: Path, capsys: Captured, flags: list[str], message: str) -> None:
    (folder / "sub").mkdir()
    refused(capsys, message, "in.onnx", "out.onnx", *flags)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("no/out.onnx", "does not exist; make it first"),
        ("in.onnx/out.onnx", "is not a folder"),
        ("sub", "is a folder; expected the name of a file"),
        ("/proc/out.onnx", "/proc/out.onnx: "),
    ],
)
def test_outputs(folder: Path, capsys: Captured, output: str, message: str) -> None:
    (folder / "sub").mkdir()
    refused(capsys, message, "in.onnx", output)
    if not output.startswith("/proc"):
        refused(capsys, message, "in.onnx", "out.onnx", "--report", output)


def test_what_is_read_is_not_written_over(folder: Path, capsys: Captured) -> None:
    refused(capsys, "data.npz: is --calib too", "in.onnx", "data.npz", "--calib", "data.npz")
    (folder / "01-simplify.onnx").write_bytes((folder / "in.onnx").read_bytes())
    flags = ("--passes", "simplify", "--dump", str(folder))
    refused(capsys, "is the folder of the input too", "01-simplify.onnx", "out.onnx", *flags)
    external_model(folder)
    refused(capsys, "is external data of the input too", "in.onnx", "in.onnx.data")


def test_labels_beyond_the_classes_show_before_a_pass_runs(folder: Path, capsys: Captured) -> None:
    np.savez("data.npz", x=GOOD, labels=np.array([0, 1, 2, 3, 0, 1, 2, 0]))
    flags = ("--eval", "data.npz", "--metric", "top1")
    refused(capsys, "sample 3 has the label 3; the output 'y' has 3 classes, 0 to 2",
            "in.onnx", "out.onnx", *flags)  # fmt: skip
    assert main(["in.onnx", "out.onnx", "--eval", "data.npz"]) == 0
    assert "The labels were not used" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("output", ["out.onnx", "in.onnx"])
def test_a_full_disk_keeps_what_was_there(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused(capsys, f"{output}: cannot be written: the disk is full", "in.onnx", output)


def test_a_report_that_cannot_be_written_says_that_the_model_was(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("onnxslim.files.Staging", full)
    assert main(["in.onnx", "out.onnx", "--report", "r.json", "--quiet"]) == 1
    assert capsys.readouterr().err == (
        "error: r.json: cannot be written: the disk is full; out.onnx was written\n"
    )
    assert ir.load("out.onnx")


def test_a_file_size_limit_is_told(folder: Path) -> None:
    """The system itself refuses to write more than some bytes."""
    import subprocess
    import sys

    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "from onnxslim.cli import main\n"
        "sys.exit(main(['in.onnx', 'out.onnx', '--quiet']))"
    )
    before = state(folder)
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr == (
        "error: out.onnx: cannot be written: the file is larger than the file system or the "
        "limits allow; nothing was changed\n"
    )
    assert state(folder) == before


FOREIGN = """
<ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>
g (float[2, 4] x) => (float[2, 3] y)
<float[4, 3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}, float[3] b = {0.5, 0.25, 0}> {
  c = Add(b, b)
  t = com.example.Secret(x)
  m = MatMul(t, w)
  y = Add(m, c)
}
"""


def test_an_operator_that_the_runtime_lacks_stops_only_what_must_run(
    folder: Path, capsys: Captured
) -> None:
    ir.save(ir.parse_text(FOREIGN), folder / "in.onnx")
    assert main(["in.onnx", "out.onnx", "--passes", "fold"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert [n.op_type for n in ir.load("out.onnx").graph] == ["Secret", "MatMul", "Add"]
    assert "Not checked: " in shown
    assert "Latency was not measured: " in shown
    assert "Secret" in shown


def test_an_operator_that_the_runtime_lacks_stops_quant_with_data(
    folder: Path, capsys: Captured
) -> None:
    ir.save(ir.parse_text(FOREIGN), folder / "in.onnx")
    np.savez("data.npz", x=np.ones((8, 2, 4), np.float32))
    refused(capsys, "Secret", "in.onnx", "out.onnx", "--passes", "quant", "--calib", "data.npz")
