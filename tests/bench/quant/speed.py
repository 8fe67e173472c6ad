"""How fast int8 is: `simplify,quant` beside the float export, in turns, one thread and two.

python -m tests.bench.quant.speed FOLDER [NAME...] [--out docs/SPEED.md] [--budget SECONDS]

FOLDER is what `python -m tests.bench.simplify.export FOLDER` wrote, in an environment with torch:
architectures with random weights and random images, as these tell nothing about accuracy but all
about speed. Nothing is undone for being slow, so that slow models are seen. Rows that an earlier
run wrote stay where a run does not repeat them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxslim.runtime.latency import LatencyResult, interleaved_latency
from tests.bench.compilers import watch
from tests.bench.simplify.latency import open_file
from tests.bench.simplify.subjects import Subject
from tests.bench.table import machine

NAMES = (
    "resnet50",
    "vgg11_bn",
    "vit_b_16",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
    "swin_t",
    "densenet121",
    "resnext50_32x4d",
    "timm_fastvit_t8",
    "timm_efficientvit_b0",
)
SAMPLES = 8
INTRO = """# Speed of int8

Written by `python -m tests.bench.quant.speed`. FP32 is the export as it is, int8 what
`--passes simplify,quant` makes of it with 8 random images and seed 0; both take turns in one
process with ONNX Runtime, batch 1. *Speed* is FP32 milliseconds over int8's, the median of rounds
with its 99 % interval. *SQNR* is that of the outputs on the calibration images. Weights are random.
"""
HEAD = (
    "model",
    "int8 layers",
    "FP32 ms",
    "speed, 1 thread",
    "speed, 2 threads",
    "size",
    "SQNR dB",
    "compile s",
)


@dataclass(frozen=True)
class Row:
    """One model. `speeds`: per number of threads the median and its interval."""

    model: str
    layers: int
    db: float
    ms: float
    speeds: Mapping[str, tuple[float, float, float]]
    size: float
    seconds: float
    about: Mapping[str, str]

    def cells(self) -> Iterable[str]:
        """As text."""
        yield self.model
        yield str(self.layers)
        yield f"{self.ms:.2f}"
        for threads in ("1", "2"):
            middle, low, high = self.speeds[threads]
            yield f"{middle:.2f} ({low:.2f} to {high:.2f})"
        yield f"{self.size:.2f}"
        yield f"{self.db:.1f}"
        yield f"{self.seconds:.1f}"


def measure(subject: Subject, folder: Path, budget_s: float) -> Row:
    """Compile one model and time it."""
    out, calib, report = (folder / f"{subject.name}{end}" for end in (".onnx", ".npz", ".report"))
    np.savez(calib, allow_pickle=False, **subject.feed(SAMPLES))
    arguments = ["--passes", "simplify,quant", "--calib", str(calib), "--report", str(report)]
    more = ["--allow-slower", "--no-check", "--quiet", "--threads", "1"]
    command = [sys.executable, "-m", "onnxslim", str(subject.path), str(out), *arguments, *more]
    took = watch(command, out)
    if took.failure:
        raise SystemExit(f"{subject.name}: {took.failure}")
    stats = json.loads(report.read_text(encoding="utf-8"))["passes"][-1]["stats"]
    sessions = {n: [open_file(p, n) for p in (subject.path, out)] for n in (1, 2)}
    times = {n: interleaved_latency(s, subject.feed(1), n, budget_s) for n, s in sessions.items()}
    return Row(
        subject.name,
        stats["int8_layers"],
        stats["output_db"],
        times[1].ms[0],
        {str(n): _speed(found) for n, found in times.items()},
        out.stat().st_size / subject.path.stat().st_size,
        took.seconds,
        machine(),
    )


def _speed(times: LatencyResult) -> tuple[float, float, float]:
    low, high = times.interval()
    return 1 / times.ratio(), 1 / high, 1 / low


def markdown(rows: Iterable[Row]) -> str:
    """The table, and on which machines it was measured."""
    found = list(rows)
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in found)]
    machines = {", ".join(f"{k} {v}" for k, v in row.about.items()) for row in found}
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([INTRO, table, "", *sorted(machines), ""])


def _earlier(path: Path) -> dict[str, Row]:
    if not path.exists():
        return {}
    stored: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return {row["model"]: Row(**row) for row in stored}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--out", type=Path, help="a Markdown file; a .json is written beside it")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds of timing, each")
    asked = parser.parse_args()
    out: Path | None = asked.out
    store = None if out is None else out.with_suffix(".json")
    rows = {} if store is None else _earlier(store)
    for name in asked.names:
        subject = Subject(name, asked.zoo.resolve() / f"{name}.onnx", size=224)
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = measure(subject, Path(folder), asked.budget)
        print(" ".join(rows[name].cells()), flush=True)
        if out is not None and store is not None:
            store.write_text(json.dumps([asdict(r) for r in rows.values()], indent=1) + "\n")
            out.write_text(markdown(rows.values()), encoding="utf-8")


if __name__ == "__main__":
    main()
