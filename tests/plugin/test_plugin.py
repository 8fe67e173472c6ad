"""A package of somebody else brings a pass: installed for real, found, listed, run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onnxslim import ir

PACKAGE = Path(__file__).parent / "package"
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z) {
  a = Neg(x)  b = Neg(a)  y = Relu(b)
  c = Neg(y)  z = Neg(c)
}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    source, target = folder / "source", folder / "site"
    shutil.copytree(PACKAGE, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([*pip, *options, str(source)], check=True, capture_output=True, timeout=120)
    return target


def onnxslim(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnxslim", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(site)},
    )


def test_it_runs_in_a_pipeline(site: Path, tmp_path: Path) -> None:
    ir.save(ir.parse_text(TEXT), tmp_path / "in.onnx")
    files = [str(tmp_path / name) for name in ("in.onnx", "out.onnx", "r.json")]
    ran = onnxslim(site, *files[:2], "--passes", "double-negation{most=3}", "--report", files[2])
    assert ran.returncode == 0, ran.stderr
    assert [n.op_type for n in ir.load(files[1]).graph] == ["Relu", "Neg", "Neg"]
    entry = json.loads(Path(files[2]).read_text())["passes"][0]
    assert entry["spec"] == "double-negation{most=3}"
    assert entry["stats"] == {"removed": 1}
    assert [d["reason"] for d in entry["declined"]] == ["its value is an output of the graph"]


def test_it_is_listed_with_its_package(site: Path) -> None:
    listed = onnxslim(site, "--list-passes")
    assert "double-negation  (onnxslim-double-negation)" in listed.stdout
    assert "how many to take out at most" in listed.stdout


def test_its_options_are_checked_like_ours(site: Path) -> None:
    ran = onnxslim(site, "a.onnx", "b.onnx", "--passes", "double-negation{most=0}")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "most=0 given (most: 1 or more)" in ran.stderr


def test_without_the_package_there_is_no_such_pass(tmp_path: Path) -> None:
    ran = onnxslim(tmp_path, "a.onnx", "b.onnx", "--passes", "double-negation")
    assert ran.returncode == 1
    assert "no pass 'double-negation'" in ran.stderr


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            "raise RuntimeError('old')",
            "cannot be imported (RuntimeError: old); update or uninstall",
        ),
        ("Broken = 7", "is 7, not a subclass of onnxslim.Pass"),
    ],
)
def test_a_broken_package_breaks_only_its_own_pass(
    tmp_path: Path, module: str, message: str
) -> None:
    info = tmp_path / "broken_pass-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-pass\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[onnxslim.passes]\nbroken = broken_pass:Broken\n")
    (tmp_path / "broken_pass.py").write_text(module)
    listed = onnxslim(tmp_path, "--list-passes")
    assert listed.returncode == 0
    assert message in " ".join(listed.stdout.split())
    assert "fold" in listed.stdout
    ran = onnxslim(tmp_path, "a.onnx", "b.onnx", "--passes", "broken")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert message in ran.stderr
