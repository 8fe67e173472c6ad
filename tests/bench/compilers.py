"""Who compiles: this project's command line, and ONNX Runtime's own quantizer, each in a process.

The peak of memory is that of the process alone (see `peak`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cases import Case

_ROOT = Path(__file__).resolve().parents[2]
_ENV = {**os.environ, "PYTHONPATH": str(_ROOT)}


@dataclass(frozen=True)
class Setting:
    """One way to compile a model; `arguments` go to the module. With a `variant` the module is a
    runner of tests/bench/quant/peers."""

    label: str
    module: str
    arguments: tuple[str, ...] = ()
    variant: str = ""

    def command(self, model: Path, calib: Path, out: Path) -> list[str]:
        """The whole command line, starting with the interpreter."""
        paths = [str(model), str(out), "--calib", str(calib)]
        if self.variant:
            paths = [self.variant, str(model), str(calib), str(out)]
        return [sys.executable, "-m", self.module, *paths, *self.arguments]


def ours(passes: str) -> Setting:
    """This project's command line with these passes."""
    return Setting(f"onnxslim {passes}", "onnxslim", ("--passes", passes, "--quiet"))


_ORT = "tests.bench.quant.peers.with_ort"
ORT_ALL = Setting("quantize_static U8S8 per channel", _ORT, variant="U8S8 per channel")
ORT_HEAVY = Setting(
    "same, only Conv, MatMul, Gemm", _ORT, variant="U8S8 per channel, Conv MatMul Gemm"
)
ORT_AS_GIVEN = Setting(
    "quantize_static, U8S8 per channel", _ORT, variant="U8S8 per channel, as given"
)
"""Without its own preparation, for a model that needs none."""


@dataclass(frozen=True)
class Compiled:
    """What a compile took, or why it failed; `cpu_s` are seconds of all processors together, and
    `anonymous_mb` the peak without mapped files."""

    seconds: float
    cpu_s: float
    peak_mb: float
    failure: str = ""
    anonymous_mb: float | None = None


def compile_case(case: Case, setting: Setting, out: Path) -> Compiled:
    """Run one compile to its end."""
    return watch(setting.command(case.model, case.calib, out), out)


def watch(command: list[str], out: Path) -> Compiled:
    """Run a command that writes `out` to its end; its log goes beside that."""
    log, found = out.with_suffix(".log"), out.with_suffix(".json")
    watched = [sys.executable, "-m", "tests.bench.peak", str(found), *command]
    with log.open("w", encoding="utf-8") as sink:
        # some compilers leave files where they run
        subprocess.run(watched, stdout=sink, stderr=sink, check=True, cwd=out.parent, env=_ENV)
    took = json.loads(found.read_text(encoding="utf-8"))
    failure = "" if took["code"] == 0 else _last_line(log)
    return Compiled(took["seconds"], took["cpu_s"], took["peak_mb"], failure, took["anonymous_mb"])


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"
