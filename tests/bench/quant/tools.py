"""The quantizers that are compared: each peer's settings, and the environment it runs in."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cases import Case
from tests.bench.environments import TORCH_CPU, make
from tests.bench.simplify.tools import source_digest

OURS = "ours"
TRANSFORMERS = ("minilm_l6", "fashion_vit")
_SCRIPTS = Path(__file__).with_name("peers")
_RUNTIME = ("onnx==1.23.2", "onnxruntime==1.32.0")
_TORCH = ("torch==2.13.0", *TORCH_CPU)


@dataclass(frozen=True)
class Peer:
    """A tool: the packages of its environment in the order of installation, and its settings."""

    name: str
    title: str
    packages: tuple[tuple[str, ...], ...]
    variants: tuple[str, ...]
    attention: tuple[str, ...] = ()  # settings that are made for transformers

    @property
    def script(self) -> Path:
        """Its runner."""
        return _SCRIPTS / f"with_{self.name}.py"

    @property
    def version(self) -> str:
        """Changes whenever its results may."""
        digest = hashlib.sha256(" ".join(name for step in self.packages for name in step).encode())
        for path in (_SCRIPTS / "common.py", self.script):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]


PEERS = (
    Peer(
        "ort",
        "onnxruntime.quantization",
        ((*_RUNTIME, "sympy==1.14.0", "numpy==2.4.6"),),
        (
            "S8S8",
            "U8S8 per channel",
            "U8S8 per channel, reduced range",
            "U8S8 per channel, Conv MatMul Gemm",
            "dynamic",
            "dynamic, MatMul",
        ),
    ),
    Peer(
        "nncf",
        "NNCF",
        (("nncf==3.4.0", *_RUNTIME),),
        ("as given", "prepared", "prepared, full bias correction"),
    ),
    Peer(
        "quark",
        "AMD Quark",
        (_TORCH, ("amd-quark==0.13", "onnx==1.22.0", "onnxruntime==1.32.0")),
        ("default", "U8S8", "U8S8, equalized", "U8S8, AdaRound"),
    ),
    Peer(
        "aimet",
        "AIMET-ONNX",
        (_TORCH, ("aimet-onnx==2.42.0", "onnxruntime==1.32.0")),
        ("W8A8", "W8A8, equalized"),
    ),
    Peer(
        "onnxsim",
        "onnxsim",
        (("onnxsim==0.8.1", *_RUNTIME, "numpy==2.4.6"),),
        ("static", "static, full graph"),
    ),
    Peer(
        "inc",
        "onnx-neural-compressor",
        (
            _TORCH,
            (
                "onnx-neural-compressor==1.0",
                "numpy==1.26.4",
                "scipy==1.14.1",
                "prettytable==3.18.0",
                *_RUNTIME,
            ),
        ),
        ("static", "static, Q/DQ", "dynamic"),
        ("SmoothQuant",),
    ),
)


@dataclass(frozen=True)
class Tool:
    """One setting of one quantizer, ready to run."""

    label: str
    head: tuple[str, ...]
    version: str
    peer: str = OURS

    @property
    def file(self) -> str:
        """A name for what it writes."""
        return "".join(c if c.isalnum() else "_" for c in self.label) + ".onnx"

    def command(self, case: Case, out: Path) -> list[str]:
        """The whole command line."""
        if self.peer == OURS:
            return [*self.head, str(case.model), str(out), "--calib", str(case.calib)]
        more = ["--transformer"] if case.name in TRANSFORMERS else []
        return [*self.head, str(case.model), str(case.calib), str(out), *more]


def ours() -> Tool:
    """This project's command line with its defaults; its version is a digest of its sources."""
    flags = ("--passes", "simplify,quant", "--quiet")
    return Tool(OURS, (sys.executable, "-m", "onnxslim", *flags), source_digest())


def tools(case: str, pythons: Mapping[str, str]) -> list[Tool]:
    """Ours and all settings of the peers whose interpreter is given."""
    found = [ours()]
    for peer in PEERS:
        if peer.name in pythons:
            variants = peer.variants + (peer.attention if case in TRANSFORMERS else ())
            head = (pythons[peer.name], "-m", f"{__package__}.peers.{peer.script.stem}")
            found += [
                Tool(f"{peer.title} {variant}", (*head, variant), peer.version, peer.name)
                for variant in variants
            ]
    return found


def environments(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """The interpreters of these peers; their environments are made where they are not there."""
    return {p.name: make(folder / p.name, p.packages) for p in PEERS if p.name in names}
