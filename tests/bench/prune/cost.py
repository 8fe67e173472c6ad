"""What pruning costs: seconds and memory of ResNet-50 with 512 samples.

python -m tests.bench.prune.cost ZOO [--samples 512] [--out docs/PRUNE_COST.md]

ZOO is what `python -m tests.bench.simplify.export ZOO resnet50` wrote, where there is torch. Its
weights are random, and so are its images, which the cost does not depend on.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.bench.compilers import Setting
from tests.bench.quant.compile_cost import megabytes, race, summary, write_samples
from tests.bench.quant.cost_report import write

PASSES = "prune{ratio=0.6}"
LIMIT_S, LIMIT_MB = 180.0, 3072
INTRO = f"""# What pruning costs

Written by `python -m tests.bench.prune.cost`. Seconds are those of the whole process on two
threads, without the check and without the timing that undoes what is slower; the limits are
{LIMIT_S:.0f} seconds and {LIMIT_MB} MB. ResNet-50 has random weights and random images. Seed 0.
"""


def main() -> None:
    """Print the row, and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--out", type=Path, help="a Markdown file; a .json is written beside it")
    asked = parser.parse_args()
    model: Path = asked.zoo.resolve() / "resnet50.onnx"
    more = ("--no-check", "--allow-slower", "--quiet", "--threads", "2")
    setting = Setting(PASSES, "onnxslim", ("--passes", PASSES, *more))
    with tempfile.TemporaryDirectory() as folder:
        calib = Path(folder, "samples.npz")
        write_samples(model, asked.samples, calib)
        runs = race(model, calib, [setting], 1)[PASSES]
    cost = replace(
        summary("resnet50", PASSES, asked.samples, megabytes(model), runs), limit_s=LIMIT_S
    )
    print(" | ".join(cost.cells()))
    if asked.out is not None:
        write([cost], asked.out, INTRO)


if __name__ == "__main__":
    main()
