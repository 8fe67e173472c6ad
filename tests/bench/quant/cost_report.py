"""What quantizing costs, as Markdown and JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.simplify.report import commit
from tests.bench.table import machine

CONSTANT_MB = 512
"""What a compile may take in memory beyond twice the model."""

INTRO = f"""# What quantizing costs

Written by `python -m tests.bench.quant.compile_cost`. *Seconds* are those of the whole process,
imports included, the least of the rounds; *processor* adds up what all threads computed or waited
for in a spin. Where *load* is above the number of CPUs, other programs ran too: then the seconds
say little, and those of the processor a bit more than alone. *Limit*: for min-max ranges the peer's
seconds on the same file and samples, elsewhere a number of seconds that was set. *Anonymous* is the
peak of memory without mapped files (model and samples are read where they lie, so that their pages
count in *peak* and can be taken back at any time); it stays below twice the model plus
{CONSTANT_MB} MB, whatever the number of samples. *Beyond* is what it takes over twice the model.
ResNet-50 has random weights and random images. Seed 0.
"""
HEAD = (
    "model",
    "setting",
    "samples",
    "seconds",
    "limit",
    "processor s",
    "peak MB",
    "anonymous MB",
    "beyond 2 x model",
)


@dataclass(frozen=True)
class Cost:
    """The least seconds and the highest peaks of some rounds."""

    model: str
    label: str
    samples: int
    model_mb: float
    seconds: float
    cpu_s: float
    peak_mb: float
    anonymous_mb: float
    limit_s: float | None = None
    failure: str = ""

    @property
    def beyond_mb(self) -> float:
        """What is taken over twice the model."""
        return self.anonymous_mb - 2 * self.model_mb

    def cells(self) -> Iterable[str]:
        """One row of the table."""
        yield self.model
        yield self.failure or self.label
        yield str(self.samples or "")
        yield f"{self.seconds:.1f}"
        yield "" if self.limit_s is None else f"{self.limit_s:.1f}"
        yield f"{self.cpu_s:.1f}"
        yield f"{self.peak_mb:.0f}"
        yield f"{self.anonymous_mb:.0f}"
        yield f"{self.beyond_mb:+.0f}"


def write(costs: Sequence[Cost], out: Path, intro: str = INTRO) -> None:
    """Both files."""
    load = f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} CPUs"  # other programs' included
    about = {**machine(), "load": load, "seed": "0", "commit": commit()}
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = [HEAD, ["---"] * len(HEAD), *(cost.cells() for cost in costs)]
    table = [f"| {' | '.join(row)} |" for row in rows]
    lines = [intro, *table, "", ", ".join(f"{k} {v}" for k, v in about.items()), ""]
    out.write_text("\n".join(lines), encoding="utf-8")
    content = {"machine": about, "rows": [asdict(cost) for cost in costs]}
    out.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
