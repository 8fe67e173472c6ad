"""What the README shows works as it is written there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import onnxslim
from onnxslim.registry import list_passes

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "models" / "fashion_vit.onnx", tmp_path / "model.onnx")
    with np.load(ROOT / "models" / "fashion_calib.npz") as samples:
        np.savez(tmp_path / "samples.npz", input=samples["input"][:40])
    return tmp_path


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_library_examples_run(folder: Path) -> None:
    path_example, graph_example, _ = blocks("python")
    prepare = (
        "import onnx, numpy as np\n"
        "proto = onnx.load('model.onnx')\n"
        "feeds = {'input': np.load('samples.npz')['input']}\n"
    )
    code = prepare + path_example + graph_example + "print(type(graph).__name__)"
    assert run(code, folder).splitlines()[-1] == "Graph"
    assert onnxslim.load(folder / "small.onnx").graph.inputs[0].name == "input"


def test_the_example_pass_is_a_pass(folder: Path) -> None:
    (folder / "my_passes.py").write_text(blocks("python")[2], encoding="utf-8")
    code = (
        "import onnxslim, my_passes\n"
        "model = onnxslim.load('model.onnx')\n"
        "next(iter(model.graph)).doc_string = 'x'\n"
        "done = onnxslim.compress(model, passes=[my_passes.DropDocStrings()])\n"
        "print(done.report.passes[0].stats)"
    )
    assert run(code, folder).strip() == "{'dropped': 1}"


def test_the_toml_example_is_read(folder: Path) -> None:
    config = next(block for block in blocks("toml") if "[[pass]]" in block)
    (folder / "compile.toml").write_text(config, encoding="utf-8")
    command = "import sys; from onnxslim.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["model.onnx", "out.onnx", "--config", "compile.toml", "--print-pipeline"]
    done = subprocess.run(
        [sys.executable, "-c", command, *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.stdout.strip().startswith("lowrank{ratio=0.5},quant"), done.stderr


def test_every_pass_is_in_the_table() -> None:
    named = set(re.findall(r"^\| `([\w-]+)` \|", README, flags=re.MULTILINE))
    assert named == {description.name for description in list_passes()}
