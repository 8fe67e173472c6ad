"""What static int8 with min-max ranges costs: ours beside `quantize_static`, seconds and memory.

All start from the same simplified file (its own cost stands apart) and read the same random
samples, with as many threads as there are CPUs, which is the peer's default. Each compile is a
process, in turns. Seconds are those of whole processes, imports included; the least of the rounds
counts, as nothing makes a process faster than it is. Ours measures that the result is faster,
the peer does not; the row with --allow-slower does not either.

python -m tests.bench.quant.compile_cost MODEL [--samples 16 256] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.samples import save_stacked
from onnxslim import ir
from tests.bench.compilers import Compiled, Setting, watch

PASS = "quant{scheme=int8 ranges=minmax}"
THREADS = ("--threads", str(os.cpu_count() or 1))
SIMPLIFY = Setting("simplify", "onnxslim", ("--passes", "simplify", "--no-check", "--quiet"))
OURS = Setting(PASS, "onnxslim", ("--passes", PASS, "--no-check", "--quiet", *THREADS))
UNTIMED = replace(
    OURS, label=f"{PASS}, --allow-slower", arguments=(*OURS.arguments, "--allow-slower")
)
PEER = Setting(
    "quantize_static U8S8 per channel",
    "tests.bench.ort_quantizer",
    ("--operators", "all", "--prepared"),
)


@dataclass(frozen=True)
class Cost:
    """The least seconds and the highest peak of some rounds."""

    label: str
    samples: int
    seconds: float
    peak_mb: float
    failure: str = ""

    def line(self, model_mb: float) -> str:
        """One row of the table."""
        over = self.peak_mb - 2 * model_mb
        numbers = f"{self.samples:7}  {self.seconds:8.2f}  {self.peak_mb:8.0f}  {over:+9.0f}"
        return f"{self.label:42}  {numbers}  {self.failure}".rstrip()


HEADER = f"{'':42}  samples   seconds   peak MB  - 2 model"


def write_samples(model: Path, count: int, path: Path) -> None:
    """So many random feeds of the model's own shapes, free sizes taken for 1, as .npz."""
    rng = np.random.default_rng(0)
    feeds: dict[str, npt.NDArray[np.float32]] = {}
    for value in ir.load(model).graph.inputs:
        sizes = [size if isinstance(size, int) else 1 for size in value.shape or ()]
        feeds[str(value.name)] = rng.normal(size=(count, *sizes[1:])).astype(np.float32)
    save_stacked(path, **feeds)


def race(model: Path, calib: Path, count: int, rounds: int) -> list[Cost]:
    """All compilers in turns, on one file of samples."""
    runs: dict[str, list[Compiled]] = {}
    out = calib.with_suffix(".onnx")
    for _ in range(rounds):
        for setting in (OURS, UNTIMED, PEER):
            paths = (str(model), str(out), "--calib", str(calib))
            command = [sys.executable, "-m", setting.module, *paths, *setting.arguments]
            runs.setdefault(setting.label, []).append(watch(command, out))
    return [summary(label, count, found) for label, found in runs.items()]


def summary(label: str, count: int, found: Sequence[Compiled]) -> Cost:
    """What counts of several runs."""
    failure = next((run.failure for run in found if run.failure), "")
    seconds = min(run.seconds for run in found)
    return Cost(label, count, seconds, max(run.peak_mb for run in found), failure)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--samples", type=int, nargs="+", default=[16, 256])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(HEADER)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ready = folder / "ready.onnx"
        command = [sys.executable, "-m", "onnxslim", str(asked.model), str(ready)]
        simplified = watch([*command, *SIMPLIFY.arguments], ready)
        model_mb = asked.model.stat().st_size / 2**20
        print(summary(SIMPLIFY.label, 0, [simplified]).line(model_mb), flush=True)
        for count in asked.samples:
            calib = folder / f"{count}.npz"
            write_samples(asked.model, count, calib)
            for cost in race(ready, calib, count, asked.rounds):
                print(cost.line(model_mb), flush=True)


if __name__ == "__main__":
    main()
