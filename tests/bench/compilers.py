"""Who compiles: this project's command line, and ONNX Runtime's own quantizer, each in a process.

The peak of memory is that of the process (`ru_maxrss` of the finished child).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cases import Case


@dataclass(frozen=True)
class Setting:
    """One way to compile a model; `arguments` go to the module."""

    label: str
    module: str
    arguments: tuple[str, ...]

    def command(self, case: Case, out: Path) -> list[str]:
        """The whole command line, starting with the interpreter."""
        paths = [str(case.model), str(out), "--calib", str(case.calib)]
        return [sys.executable, "-m", self.module, *paths, *self.arguments]


def ours(passes: str) -> Setting:
    """This project's command line with these passes."""
    return Setting(f"onnxslim {passes}", "onnxslim", ("--passes", passes, "--quiet"))


ORT_ALL = Setting(
    "quantize_static U8S8 per channel", "tests.bench.ort_quantizer", ("--operators", "all")
)
ORT_HEAVY = Setting(
    "same, only Conv, MatMul, Gemm", "tests.bench.ort_quantizer", ("--operators", "heavy")
)


@dataclass(frozen=True)
class Compiled:
    """What a compile took, or why it failed."""

    seconds: float
    peak_mb: float
    failure: str = ""


def compile_case(case: Case, setting: Setting, out: Path) -> Compiled:
    """Run one compile to its end."""
    log = out.with_suffix(".log")
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as sink:
        child = subprocess.Popen(setting.command(case, out), stdout=sink, stderr=sink)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    failure = "" if child.returncode == 0 else _last_line(log)
    return Compiled(seconds, usage.ru_maxrss / 1024, failure)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"
