"""The simplifiers that are compared, and the environments in which they and the export run."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.environments import TORCH_CPU, make

ROOT = Path(__file__).resolve().parents[3]
_SCRIPT = Path(__file__).with_name("simplify_with.py")
PINS = {
    "onnxslim": "onnxslim==0.1.98",
    "onnxsim": "onnxsim==0.8.1",
    "onnxoptimizer": "onnxoptimizer==0.4.2",
    "onnxscript": "onnxscript==0.7.2",
    "graphsurgeon": "onnx-graphsurgeon==0.6.1",
}
_RUNTIME = ("onnx==1.23.2", "onnxruntime==1.32.0", "numpy==2.4.6")
_TORCH = ("torch==2.13.0", "onnx==1.23.2")
_MODELS = ("torchvision==0.28.0", "timm==1.0.31")  # without what they ask for: another torch
_MODELS_NEED = ("pillow", "pyyaml", "huggingface_hub<1", "safetensors", "numpy==2.4.6")
OURS, CHECKED = "ours", "ours, checked"
PEERS = tuple(PINS)


@dataclass(frozen=True)
class Tool:
    """A simplifier; `version` changes whenever its results may."""

    name: str
    python: str
    version: str

    def command(self, source: Path, out: Path) -> list[str]:
        """The whole command line, starting with the interpreter."""
        if self.name == CHECKED:
            flags = ["--passes", "simplify", "--quiet"]
            return [self.python, "-m", "onnxslim", str(source), str(out), *flags]
        return [self.python, "-I", str(_SCRIPT), self.name, str(source), str(out)]


def ours(name: str = OURS) -> Tool:
    """This project as it stands: its version is a digest of its sources."""
    return Tool(name, sys.executable, source_digest())


def peers(python: str) -> list[Tool]:
    """The five, in the environment of that interpreter."""
    return [Tool(name, python, pin.partition("==")[2]) for name, pin in PINS.items()]


def source_digest() -> str:
    """Of all Python files that make up the program."""
    digest = hashlib.sha256()
    for folder in (ROOT / "onnxslim", ROOT / "passes"):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def make_peers(folder: Path) -> str:
    """The interpreter of an environment that holds the five; made where it is not there."""
    return make(folder, [(*PINS.values(), *_RUNTIME)])


def make_exporter(folder: Path) -> str:
    """The interpreter of an environment that can export the architectures."""
    return make(folder, [(*_TORCH, *TORCH_CPU), ("--no-deps", *_MODELS), _MODELS_NEED])
