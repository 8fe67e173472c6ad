"""Seconds of the IR's steps at two sizes, and their ratio: `python -m tests.bench.ir_scale`.

Linear steps have the ratio of the sizes, 5. CPU time, so that other processes count little.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import onnxslim
from onnxslim import ir
from tests.unit.test_ir_scale import blocks, memory_of_one_edit, quantize_every_edge


def steps(folder: Path, count: int) -> dict[str, float]:
    """CPU seconds of each step for a graph of that many nodes."""
    seconds: dict[str, float] = {}
    model = blocks(count)
    path = folder / f"{count}.onnx"

    def timed(name: str, work: Callable[[], object]) -> None:
        begin = time.process_time()
        work()
        seconds[name] = time.process_time() - begin

    timed("save", lambda: ir.save(model, path))
    timed("load", lambda: ir.load(path))
    timed("simplify, file to file", lambda: simplify(path))
    timed("walk", lambda: sum(1 for _ in ir.nodes(model)))
    timed("Q/DQ on every edge", lambda: quantize_every_edge(model))
    timed("verify, 3x the nodes", lambda: ir.verify(model))
    timed("snapshot, 3x the nodes", lambda: ir.snapshot(model))
    timed("checksum, 3x the nodes", lambda: ir.checksum(model))
    timed("save, 3x the nodes", lambda: ir.save(model, path))
    return seconds


def simplify(path: Path) -> None:
    """A whole run, with its table thrown away."""
    with redirect_stdout(StringIO()):
        onnxslim.slim(str(path), str(path.with_suffix(".out.onnx")))


def main() -> None:
    """Print the table; with `--big` also the memory of one edit in a 3 GB model."""
    with tempfile.TemporaryDirectory() as folder:
        small, large = steps(Path(folder), 10_000), steps(Path(folder), 50_000)
        print(f"{'step':28}{'10,000':>10}{'50,000':>10}{'ratio':>8}")
        for name, seconds in small.items():
            ratio = large[name] / max(seconds, 1e-9)
            print(f"{name:28}{seconds:10.3f}{large[name]:10.3f}{ratio:8.1f}")
        if "--big" in sys.argv:
            print("3.2 GB, one weight replaced:", memory_of_one_edit(Path(folder), 48, "o.onnx")[1])


if __name__ == "__main__":
    main()
