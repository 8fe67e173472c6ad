"""What pruning costs: seconds and memory of ResNet-50 with 512 samples, and of deeper ones.

python -m tests.bench.prune.cost ZOO [--runs resnet50:512,...] [--out docs/PRUNE_COST.md]

ZOO holds exports of torchvision, NAME.onnx, as `python -m tests.bench.simplify.export ZOO resnet50`
writes them where there is torch. Weights are random, and so are the images, which the cost does
not depend on. Rows that an earlier run wrote stay where a run does not repeat them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxslim import ir
from onnxslim.analyses.linear import linear_layers
from tests.bench.compilers import Setting
from tests.bench.quant.compile_cost import megabytes, race, summary, write_samples
from tests.bench.quant.cost_report import Cost, write

PASSES = "prune{ratio=0.6}"
LIMIT_S, LIMIT_MB = 180.0, 3072
LIMITED = ("resnet50", 512)
RUNS = "resnet50:512,resnet50:32,resnet101:32,resnet152:32"
INTRO = f"""# What pruning costs

Written by `python -m tests.bench.prune.cost`. Seconds are those of the whole process on two
threads, without the check and without the timing that undoes what is slower; the limits for
ResNet-50 with {LIMITED[1]} samples are {LIMIT_S:.0f} seconds and {LIMIT_MB} MB. *Anonymous* is the
peak of memory without mapped files: those are the model, the samples, and sums over rows that do
not fit into memory. Weights and images are random. Seed 0. Seconds by layer say how the cost grows
with depth.
"""


def main() -> None:
    """Print rows, and write them, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--runs", default=RUNS, help="model:samples, ...")
    parser.add_argument("--out", type=Path, help="a Markdown file; a .json is written beside it")
    asked = parser.parse_args()
    costs: list[Cost] = [] if asked.out is None else _earlier(asked.out.with_suffix(".json"))
    for run in asked.runs.split(","):
        name, _, count = run.partition(":")
        found = measure(asked.zoo.resolve() / f"{name}.onnx", int(count))
        print(" | ".join(found.cells()), flush=True)
        costs = [*(c for c in costs if (c.model, c.samples) != (found.model, found.samples)), found]
        costs.sort(key=lambda cost: (-cost.samples, cost.model_mb))
        if asked.out is not None:
            write(costs, asked.out, INTRO)


def measure(model: Path, count: int) -> Cost:
    """One run of the command line, with so many samples."""
    more = ("--no-check", "--allow-slower", "--quiet", "--threads", "2")
    setting = Setting(PASSES, "onnxslim", ("--passes", PASSES, *more))
    with tempfile.TemporaryDirectory() as folder:
        calib = Path(folder, "samples.npz")
        write_samples(model, count, calib)
        runs = race(model, calib, [setting], 1)[PASSES]
    found = summary(model.stem, PASSES, count, megabytes(model), runs)
    layers = len(linear_layers(ir.load(model))[0])
    each = f"{PASSES}; {found.seconds / layers:.2f} s by layer of {layers}"
    limit = LIMIT_S if (model.stem, count) == LIMITED else None
    return replace(found, label=each, limit_s=limit)


def _earlier(path: Path) -> list[Cost]:
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [Cost(**row) for row in rows]


if __name__ == "__main__":
    main()
