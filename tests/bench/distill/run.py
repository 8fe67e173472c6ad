"""What distillation wins back: the metric before, after level=layer and after level=model.

python -m tests.bench.distill.run [--students 1,2] [--minutes 5 | --steps N] [--out docs/DISTILL.md]

Rows that an earlier run wrote stay where a run does not repeat their student. Needs torch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxslim import ir
from onnxslim.ir import Model
from onnxslim.passes.distill.distill import Distill
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.runtime.samples import Samples
from onnxslim.targets import get_target
from tests.bench.cases import Case, load_case
from tests.bench.distill.students import STUDENTS, THREADS, Student, lessons, made
from tests.bench.table import machine

CACHE = Path("out/distill")
BEGIN, END = "<!-- rows -->", "<!-- end of rows -->"
HEAD = (
    "model", "what is left", "teacher", "before", "layer", "model", "regained by model",
    "samples", "steps", "rate", "loss held out", "layer s", "model s",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One student: its metric and how it was taught."""

    model: str
    title: str
    teacher: float
    before: float
    layer: float
    trained: float
    samples: int
    steps: int
    rate: float
    loss: tuple[float, float]
    seconds: tuple[float, float]
    minutes: float

    @property
    def regained(self) -> float | None:
        """The share of what was lost; None where next to nothing was."""
        lost = self.teacher - self.before
        return (self.trained - self.before) / lost if lost > 1e-3 else None

    def cells(self) -> Iterable[str]:
        """As text."""
        yield from (self.model, self.title)
        yield from (f"{m:.4f}" for m in (self.teacher, self.before, self.layer, self.trained))
        yield "" if self.regained is None else f"{self.regained:.0%}"
        yield from (str(self.samples), str(self.steps), f"{self.rate:g}")
        yield f"{self.loss[0]:.3g} to {self.loss[1]:.3g}"
        yield from (f"{s:.0f}" for s in self.seconds)


def measure(student: Student, minutes: float, steps: int) -> Row:
    """Make a student, teach it at two levels and score all of them on the evaluation samples."""
    case = load_case(student.model)
    teacher = ir.load(case.model)
    samples = lessons(case, teacher)
    path = made(teacher, student, samples, CACHE)
    given = ir.load(path)
    by_layer, trained = ir.snapshot(given), ir.snapshot(given)
    start = time.perf_counter()
    teach(teacher, by_layer, samples, Distill(level="layer"))
    middle = time.perf_counter()
    done = teach(teacher, trained, samples, Distill(level="model", minutes=minutes, steps=steps))
    end = time.perf_counter()
    if done.stats.get("level") != "model":
        raise SystemExit(f"{student.model}: {'; '.join(done.notes)}")
    ir.save(trained, taught_file(path))
    stats = done.stats
    return Row(
        model=student.model,
        title=student.title,
        teacher=score(case, teacher),
        before=score(case, given),
        layer=score(case, by_layer),
        trained=score(case, trained),
        samples=len(samples),
        steps=int(stats["steps"]),
        rate=float(stats["rate"]),
        loss=(float(stats["loss_before"]), float(stats["loss_after"])),
        seconds=(middle - start, end - middle),
        minutes=minutes,
    )


def taught_file(path: Path) -> Path:
    """Where a student lies that was taught end to end."""
    return path.with_suffix(".taught.onnx")


def teach(teacher: Model, student: Model, samples: Samples, options: Distill) -> PassResult:
    """One run of the pass in place."""
    with ThreadPoolExecutor(THREADS) as executor:
        env = Environment(get_target("ort-cpu"), executor, calib=samples, threads=THREADS)
        return options.run(student, Context(env, AnalysisManager(student, env), teacher))


def score(case: Case, model: Model) -> float:
    """The metric on the evaluation samples."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        ir.save(model, path)
        outputs = case.run(path)
        return float(case.metric(outputs, case.labels))


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, and where they were measured."""
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n\n{', '.join(f'{k} {v}' for k, v in machine().items())}"


def write(path: Path, rows: Sequence[Row]) -> None:
    """Put the table between its marks in the document, and the rows into the .json beside it."""
    head, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    path.write_text(f"{head}{BEGIN}\n\n{table(rows)}\n\n{END}{tail}", encoding="utf-8")
    stored = path.with_suffix(".json")
    content: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    content |= {"machine": machine(), "rows": [asdict(row) for row in rows]}
    stored.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def earlier(path: Path) -> dict[tuple[str, str], Row]:
    """The rows of earlier runs."""
    stored = path.with_suffix(".json")
    if not stored.exists():
        return {}
    rows: list[dict[str, Any]] = json.loads(stored.read_text(encoding="utf-8")).get("rows", [])
    for row in rows:
        row |= {"loss": tuple(row["loss"]), "seconds": tuple(row["seconds"])}
    found = [Row(**row) for row in rows]
    return {(row.model, row.title): row for row in found}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    numbers = ",".join(str(i) for i in range(1, len(STUDENTS) + 1))
    parser.add_argument("--students", default=numbers, help="their numbers in STUDENTS, from 1")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument(
        "--steps", type=int, default=0, help="instead of minutes, on a busy machine"
    )
    parser.add_argument("--out", type=Path, help="a Markdown file with the marks of the table")
    asked = parser.parse_args()
    rows = {} if asked.out is None else earlier(asked.out)
    for number in asked.students.split(","):
        row = measure(STUDENTS[int(number) - 1], asked.minutes, asked.steps)
        rows[row.model, row.title] = row
        order = {(s.model, s.title): i for i, s in enumerate(STUDENTS)}
        ordered = sorted(rows.values(), key=lambda r: order.get((r.model, r.title), 99))
        print(table(ordered), flush=True)
        if asked.out is not None:
            write(asked.out, ordered)


if __name__ == "__main__":
    main()
