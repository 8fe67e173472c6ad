"""Weights of 4 bits beside int8: metric, agreement, SQNR, size, seconds and speed.

python -m tests.bench.quant.bits [--models a,b] [--out docs/BITS.md] [--budget SECONDS]

Rows that an earlier run wrote of these models stay where a run does not repeat them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.cases import COMMITTED, Case, load_case
from tests.bench.compilers import Setting, compile_case
from tests.bench.quant.measure import race, score
from tests.bench.table import machine, save

MODELS = ("efficientnet_lite0", "efficientnet_lite0_photos", *COMMITTED)
SETTINGS = (
    ("int8", "scheme=int8"),
    ("4 bits", "scheme=int8 weight_bits=4"),
    ("4 bits, all layers", "scheme=int8 weight_bits=4 wide_share=0"),
    ("4 bits, all layers, nearest", "scheme=int8 weight_bits=4 wide_share=0 rounding=nearest"),
)
INTRO = """# Weights of 4 bits

Written by `python -m tests.bench.quant.bits --out docs/BITS.md`. Activations have 8 bits in all
rows; each setting is `--passes "simplify,quant{...}"` with the options named. All choices are made
on the unlabelled calibration samples; metric, *agreement* (share of samples with FP32's top-1) and
*SQNR* of the outputs are measured afterwards on evaluation samples that none has seen. *At 4 bits*
is the share of the quantized weights, the others have 8. *Size* is bytes over FP32's. *Speed* is
FP32 milliseconds over the setting's, one thread, one sample, all files of a model in turns. *CPU s*
(of all processors together) and *seconds* are those of the whole compile process.
efficientnet_lite0 calibrates on 64 views of 8 photos, efficientnet_lite0_photos is the same net on
518 views of 259 photos, the others have 512 images.
"""
HEAD = (
    "model",
    "setting",
    "options",
    "metric",
    "agreement",
    "SQNR dB",
    "at 4 bits",
    "size",
    "speed",
    "CPU s",
    "seconds",
)


@dataclass(frozen=True)
class Row:
    """One setting on one model; `speed` with its interval."""

    model: str
    setting: str
    options: str
    metric: float
    agreement: float
    sqnr_db: float
    narrow: float
    size: float
    speed: tuple[float, float, float]
    cpu_s: float
    seconds: float

    def cells(self) -> Iterable[str]:
        """As text."""
        yield from (self.model, self.setting, f"`{self.options}`" if self.options else "")
        yield from (f"{self.metric:.4f}", f"{self.agreement:.4f}", f"{self.sqnr_db:.1f}")
        yield f"{self.narrow:.1%}"
        yield f"{self.size:.3f}"
        yield f"{self.speed[0]:.2f} ({self.speed[1]:.2f} to {self.speed[2]:.2f})"
        yield from (f"{self.cpu_s:.0f}", f"{self.seconds:.0f}")


def measure(case: Case, folder: Path, budget_s: float) -> list[Row]:
    """Compile a model with every setting, score the results and time them together."""
    made: list[tuple[str, str, Path, dict[str, Any]]] = []
    for number, (name, options) in enumerate(SETTINGS):
        out, report = folder / f"{number}.onnx", folder / f"{number}.report"
        arguments = ("--passes", f"simplify,quant{{{options}}}", "--report", str(report))
        more = ("--quiet", "--no-check", "--allow-slower", "--threads", "1")
        took = compile_case(case, Setting(name, "onnxslim", (*arguments, *more)), out)
        if took.failure:
            raise SystemExit(f"{case.name}, {name}: {took.failure}")
        stats = json.loads(report.read_text(encoding="utf-8"))["passes"][-1]["stats"]
        about = {"cpu_s": took.cpu_s, "seconds": took.seconds, "narrow": _narrow(stats)}
        made.append((name, options, out, {**score(case, out), **about}))
    times = race(case, [path for _, _, path, _ in made], 1, budget_s)["speeds"]
    whole = case.model.stat().st_size
    return [_fp32(made[0][3]["fp32"], case.name)] + [
        Row(
            case.name, name, options, found["metric"], found["agreement"], found["sqnr_db"],
            found["narrow"], path.stat().st_size / whole, speed, found["cpu_s"], found["seconds"],
        )
        for (name, options, path, found), speed in zip(made, times, strict=True)
    ]  # fmt: skip


def _fp32(metric: float, model: str) -> Row:
    return Row(model, "FP32", "", metric, 1.0, float("inf"), 0.0, 1.0, (1.0, 1.0, 1.0), 0.0, 0.0)


def _narrow(stats: dict[str, Any]) -> float:
    """The share of weights with 4 bits, of a text like `4:95.00% 8:5.00%`."""
    shares = dict(part.split(":") for part in str(stats.get("weight_bits", "")).split())
    return float(shares.get("4", "0%").rstrip("%")) / 100


def markdown(rows: Sequence[Row]) -> str:
    """The table, and where it was measured."""
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([INTRO, table, "", ", ".join(f"{k} {v}" for k, v in machine().items()), ""])


def _earlier(path: Path, repeated: Sequence[str]) -> list[Row]:
    if not path.exists():
        return []
    stored: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    kept = set(MODELS) - set(repeated)
    return [Row(**row) for row in stored if row["model"] in kept]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--out", type=Path, help="a Markdown file; a .json is written beside it")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds of timing per model")
    asked = parser.parse_args()
    names = asked.models.split(",")
    rows = [] if asked.out is None else _earlier(asked.out.with_suffix(".json"), names)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(load_case(name), Path(folder), asked.budget)
        print(markdown(rows), flush=True)
        if asked.out is not None:
            save(asked.out, markdown(rows), rows)


if __name__ == "__main__":
    main()
