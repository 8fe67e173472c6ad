"""What somebody at the command line sees of input that quant cannot use, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.cli import main
from onnxslim.ir import Model
from onnxslim.passes.quant.schemes import SCHEMES
from tests.quantizing import build, feeds

CONV = "Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
TWO = (
    "net (float[N,3,8,8] x, float[N,3,8,8] z) => (float[N,33,8,8] y, float[N,33,8,8] q)"
    f" {{ [a] y = {CONV} (x, w) [b] q = {CONV} (z, w) }}"
)
MLP = (
    "net (float[N,64] x) => (float[N,64] y) { [a] h = MatMul(x, w) [l] g = Log(h)"
    " [b] y = MatMul(g, v) }"
)


def saved(folder: Path, model: Model, *zeros: str) -> list[str]:
    """Write the model and samples of it; returns the first arguments of a command line."""
    ir.save(model, folder / "in.onnx")
    feed = dict(feeds(model, 1, {"N": 16})[0])
    feed.update({name: np.zeros_like(feed[name]) for name in zeros})
    np.savez(folder / "data.npz", **feed)  # type: ignore[arg-type]
    places = [folder / name for name in ("in.onnx", "out.onnx", "data.npz", "report.json")]
    source, output, data, report = map(str, places)
    return [source, output, "--calib", data, "--report", report, "--allow-slower"]


def reasons(folder: Path) -> dict[str, str]:
    """What quant left alone, as the report has it."""
    report = json.loads((folder / "report.json").read_text())
    return {d["node"]: d["reason"] for d in report["passes"][0]["declined"]}


def test_a_layer_that_samples_never_excite_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = saved(tmp_path, build(TWO, {"w": (33, 3, 3, 3)}), "z")
    assert main([*given, "--passes", "quant"]) == 0
    assert "calibration never excites it" in " ".join(capsys.readouterr().out.split())
    assert list(reasons(tmp_path)) == ["b"]
    written = ir.load(tmp_path / "out.onnx")
    assert sum(v.dtype == ir.DataType.INT8 for v in written.graph.initializers.values()) > 0


def test_where_nan_arises_is_named_and_the_model_stays(tmp_path: Path) -> None:
    model = build(MLP, {"w": (64, 64), "v": (64, 64)})
    given = saved(tmp_path, model)
    main([*given, "--passes", "quant", "--no-check"])
    found = reasons(tmp_path)
    assert set(found) == {"a", "b"}
    assert all("the first value that holds such is 'g'" in why for why in found.values())
    assert ir.checksum(ir.load(tmp_path / "out.onnx")) == ir.checksum(model)


@pytest.mark.parametrize("scheme", ["fp16", "bf16"])
def test_floats_of_16_bits_halve_the_file_and_say_what_they_are_for(
    scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = "net (float[N,96] x) => (float[N,96] y) { a = MatMul(x, w) y = MatMul(a, v) }"
    given = saved(tmp_path, build(body, {"w": (96, 96), "v": (96, 96)}))
    assert main([*given, "--passes", f"quant{{scheme={scheme}}}"]) == 0
    assert "the speed as before" in " ".join(capsys.readouterr().out.split())
    sizes = [(tmp_path / name).stat().st_size for name in ("in.onnx", "out.onnx")]
    assert sizes[1] < 0.52 * sizes[0]


def test_a_scheme_that_does_not_exist_is_refused_with_those_that_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = saved(tmp_path, build(TWO, {"w": (33, 3, 3, 3)}))
    assert main([*given, "--passes", "quant{scheme=int5}"]) == 1
    error = capsys.readouterr().err
    assert f"option 'scheme': given 'int5', expected one of {', '.join(SCHEMES)}\n" in error
    assert not (tmp_path / "out.onnx").exists()
