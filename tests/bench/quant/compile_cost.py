"""What quantizing costs: seconds and memory, beside `quantize_static` and beside stated limits.

Every compile is a process; seconds are those of the whole of it, imports included, and the least of
the rounds counts, as nothing makes a process faster than it is. Seconds of the processor stand
beside them, for machines that are not idle.

python -m tests.bench.quant.compile_cost ZOO [--rounds 3] [--out docs/COST.md]

ZOO is what `python -m tests.bench.simplify.export ZOO resnet50` wrote, where there is torch. Its
weights are random, and so are its images. The other models are those of `models/fetch.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.samples import save_stacked
from models.zoo import load_entry
from onnxslim import ir
from tests.bench.compilers import ORT_AS_GIVEN, Compiled, Setting, watch
from tests.bench.quant.cost_report import Cost, write

MINMAX = "quant{scheme=int8 ranges=minmax}"
THREADS = ("--threads", str(os.cpu_count() or 1))  # the peer's default
SIMPLIFY = Setting("simplify", "onnxslim", ("--passes", "simplify", "--no-check", "--quiet"))
OURS = Setting(MINMAX, "onnxslim", ("--passes", MINMAX, "--no-check", "--quiet", *THREADS))
UNTIMED = replace(
    OURS, label=f"{MINMAX}, --allow-slower", arguments=(*OURS.arguments, "--allow-slower")
)
PEER = ORT_AS_GIVEN
RACED = (16, 256)
MANY = 1000
DEFAULTS = {"efficientnet_lite0": 60.0, "minilm_l6": 120.0}
GPTQ = (
    "quant{scheme=int8 rounding=second_order}",
    "quant{scheme=weight weight_bits=4}",
)
GPTQ_LIMIT_S = 60.0


def whole(passes: str) -> Setting:
    """The command line as a user types it: with its check."""
    return Setting(f"simplify,{passes}", "onnxslim", ("--passes", f"simplify,{passes}", "--quiet"))


def write_samples(model: Path, count: int, path: Path) -> None:
    """So many random feeds of the model's own shapes, free sizes taken for 1, as .npz."""
    rng = np.random.default_rng(0)
    feeds: dict[str, npt.NDArray[np.float32]] = {}
    for value in ir.load(model).graph.inputs:
        sizes = [size if isinstance(size, int) else 1 for size in value.shape or ()]
        feeds[str(value.name)] = rng.standard_normal((count, *sizes[1:]), np.float32)
    save_stacked(path, **feeds)


def race(
    model: Path, calib: Path, settings: Sequence[Setting], rounds: int
) -> dict[str, list[Compiled]]:
    """Some compilers in turns, on one file of samples."""
    runs: dict[str, list[Compiled]] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.onnx")
        for _ in range(rounds):
            for setting in settings:
                found = watch(setting.command(model, calib, out), out)
                runs.setdefault(setting.label, []).append(found)
    return runs


def summary(
    model: str, label: str, samples: int, size_mb: float, found: Sequence[Compiled]
) -> Cost:
    """What counts of several runs."""
    return Cost(
        model,
        label,
        samples,
        size_mb,
        seconds=min(run.seconds for run in found),
        cpu_s=min(run.cpu_s for run in found),
        peak_mb=max(run.peak_mb for run in found),
        anonymous_mb=max(run.anonymous_mb or 0.0 for run in found),
        failure=next((run.failure for run in found if run.failure), ""),
    )


def megabytes(path: Path) -> float:
    """Of a file."""
    return path.stat().st_size / 2**20


def against_peer(zoo: Path, rounds: int) -> Iterator[Cost]:
    """Min-max ranges of ResNet-50: both start from the same simplified file."""
    source = zoo / "resnet50.onnx"
    with tempfile.TemporaryDirectory() as name:
        ready = Path(name, "ready.onnx")
        command = [sys.executable, "-m", "onnxslim", str(source), str(ready), *SIMPLIFY.arguments]
        simplified = watch(command, ready)
        yield summary("resnet50", SIMPLIFY.label, 0, megabytes(source), [simplified])
        for count in (*RACED, MANY):
            calib = Path(name, f"{count}.npz")
            write_samples(ready, count, calib)
            settings = (OURS, UNTIMED, PEER) if count in RACED else (UNTIMED,)
            runs = race(ready, calib, settings, rounds if count == RACED[0] else 1)
            costs = [summary("resnet50", k, count, megabytes(ready), v) for k, v in runs.items()]
            limit = costs[-1].seconds if count in RACED else None
            yield from (c if c.label == PEER.label else replace(c, limit_s=limit) for c in costs)
            calib.unlink()


def against_limits(rounds: int) -> Iterator[Cost]:
    """The default of two models, and second-order rounding of one, on their own samples."""
    settings = [(name, whole("quant"), limit) for name, limit in DEFAULTS.items()]
    settings += [("minilm_l6", whole(passes), GPTQ_LIMIT_S) for passes in GPTQ]
    for name, setting, limit in settings:
        entry = load_entry(name)
        runs = race(entry.model, entry.calib, [setting], rounds)
        samples = count_samples(entry.calib)
        found = summary(name, setting.label, samples, megabytes(entry.model), runs[setting.label])
        yield replace(found, limit_s=limit)


def count_samples(calib: Path) -> int:
    """How many a file or a folder of files holds."""
    if calib.is_dir():
        return len(list(calib.glob("*.npz")))
    with np.load(calib) as arrays:
        return len(arrays[arrays.files[0]])


def main() -> None:
    """Print the table, row by row, and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a Markdown file; a .json is written beside it")
    asked = parser.parse_args()
    costs: list[Cost] = []
    for source in (against_limits(asked.rounds), against_peer(asked.zoo.resolve(), asked.rounds)):
        for cost in source:
            print(" | ".join(cost.cells()), flush=True)
            costs.append(cost)
            if asked.out is not None:
                write(costs, asked.out)


if __name__ == "__main__":
    main()
