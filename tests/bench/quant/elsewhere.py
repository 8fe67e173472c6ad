"""What is compiled here for another processor: what became int8, and how good it is there.

python -m tests.bench.quant.elsewhere [--target ort-cpu-vnni] [--models a,b] [--out FILE.md]

Scored as that processor computes: sums that would saturate here are exact. Rows that an earlier run
wrote of other models stay.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxslim import ir
from onnxslim.runtime.session import open_session
from tests.bench.cases import Case, load_case
from tests.bench.compilers import Setting, compile_case
from tests.bench.quant.run import MODELS
from tests.bench.table import machine, rows_of_others, save

INTRO = """# Compiled for another processor

Written by `python -m tests.bench.quant.elsewhere --target {target} --out {out}`
on a machine that is not the target: `--passes simplify,quant --target {target}` with its
defaults, where nothing is timed and costs are assumed. Metric, agreement and SQNR are of the
evaluation samples, with sums of integers that do not saturate, as on the target; *int8* are layers
of those with a weight.
"""
HEAD = ("model", "FP32", "metric", "agreement", "SQNR dB", "size", "int8", "in float", "CPU s")


@dataclass(frozen=True)
class Row:
    """One model."""

    model: str
    fp32: float
    metric: float
    agreement: float | None
    sqnr_db: float
    size: float
    int8: str
    floats: str
    cpu_s: float

    def cells(self) -> Iterable[str]:
        """As text."""
        yield from (self.model, f"{self.fp32:.4f}", f"{self.metric:.4f}")
        yield "" if self.agreement is None else f"{self.agreement:.4f}"
        yield from (f"{self.sqnr_db:.1f}", f"{self.size:.3f}", self.int8, self.floats)
        yield f"{self.cpu_s:.0f}"


def measure(case: Case, target: str, folder: Path) -> Row:
    """Compile a model for the target and score it as it computes there."""
    out, report = folder / "made.onnx", folder / "made.report"
    flags = ("--passes", "simplify,quant", "--target", target, "--report", str(report))
    took = compile_case(
        case, Setting(target, "onnxslim", (*flags, "--quiet", "--no-check", "--threads", "1")), out
    )
    if took.failure:
        raise SystemExit(f"{case.name}: {took.failure}")
    session = open_session(ir.load(out), threads=2, optimize="exact")
    reference = case.run(case.model)
    found = case.scored(case.answers(session.run), reference)
    size = sum(path.stat().st_size for path in folder.glob(f"{out.name}*"))
    notes = json.loads(report.read_text(encoding="utf-8"))["passes"][-1]["notes"]
    counts, _, floats = next(n for n in notes if n.startswith("int8: ")).partition("; ")
    return Row(
        case.name, case.metric(reference, case.labels), found.metric, found.agreement,
        found.sqnr_db, size / case.model.stat().st_size, counts.removeprefix("int8: "),
        floats.replace("|", "/"), took.cpu_s,
    )  # fmt: skip


def markdown(rows: Sequence[Row], target: str, out: Path) -> str:
    """The table, and where it was made."""
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    about = ", ".join(f"{k} {v}" for k, v in machine().items())
    return "\n".join([INTRO.format(target=target, out=f"docs/{out.name}"), table, "", about, ""])


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", default="ort-cpu-vnni")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--out", type=Path, help="a Markdown file; a .json is written beside it")
    asked = parser.parse_args()
    names = asked.models.split(",")
    stored = [] if asked.out is None else rows_of_others(asked.out.with_suffix(".json"), names)
    rows = [Row(**row) for row in stored]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            row = measure(load_case(name), asked.target, Path(folder))
        print(" | ".join(row.cells()), flush=True)
        rows = sorted((*rows, row), key=lambda row: MODELS.index(row.model))
        if asked.out is not None:
            save(asked.out, markdown(rows, asked.target, asked.out), rows)


if __name__ == "__main__":
    main()
