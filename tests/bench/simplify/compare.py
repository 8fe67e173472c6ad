"""How far the outputs of simplified files are from the original's: a process of its own.

python -m tests.bench.simplify.compare MODEL RESULT... (one JSON record per RESULT, by lines)

ONNX Runtime runs all of them without optimizations, at batch 1, 2 and 3; a model that takes only
one size is compared at that. The yardstick is the original with ONNX Runtime's own optimizations:
how far apart two correct orders of the same float operations lie.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from onnxslim import ir
from tests.bench.simplify.subjects import BATCHES, Subject, subjects

Array = npt.NDArray[Any]
Outputs = list[Array]
_runtime: Any = ort  # untyped


@dataclass(frozen=True)
class Compared:
    """`difference` is the largest over outputs and batches, relative to the output's largest."""

    nodes: int
    difference: float
    same_shapes: bool
    batches: int  # how many of BATCHES could be compared
    failure: str = ""


def count(path: Path) -> int:
    """All nodes: constants too, those of subgraphs and those of functions."""
    model = ir.read_unchecked(path)
    graphs = (model.graph, *(function.graph for function in model.functions.values()))
    return sum(1 for graph in graphs for _ in graph.all_nodes())


def difference(wanted: Sequence[Array], got: Sequence[Array]) -> float:
    """Over all outputs, relative to the largest magnitude of each; infinite for other shapes."""
    if [a.shape for a in wanted] != [a.shape for a in got]:
        return float("inf")
    return max((_one(a, b) for a, b in zip(wanted, got, strict=True)), default=0.0)


def _one(wanted: Array, got: Array) -> float:
    if wanted.size == 0 or np.array_equal(wanted, got, equal_nan=wanted.dtype.kind == "f"):
        return 0.0
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    gap = float(np.max(np.abs(a - b), where=np.isfinite(a), initial=0.0))
    return gap / max(float(np.max(np.abs(a), where=np.isfinite(a), initial=0.0)), 1e-30)


def _session(path: Path, *, optimized: bool = False) -> Any:
    options = _runtime.SessionOptions()
    options.log_severity_level = 4
    levels = _runtime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    )
    return _runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def reference(subject: Subject) -> dict[int, Outputs]:
    """The original's outputs for each batch that it takes."""
    session, found = _session(subject.path), dict[int, Outputs]()
    for batch in BATCHES:
        try:
            found[batch] = session.run(None, subject.feed(batch))
        except Exception:  # noqa: BLE001 - the runtime's errors have no common class
            continue
    return found


def compare(subject: Subject, result: Path, wanted: dict[int, Outputs], **how: bool) -> Compared:
    """What became of one file."""
    nodes, worst = count(result), 0.0
    try:
        session = _session(result, **how)
        for batch, outputs in wanted.items():
            worst = max(worst, difference(outputs, session.run(None, subject.feed(batch))))
    except Exception as error:  # noqa: BLE001 - the runtime's errors have no common class
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        return Compared(nodes, float("inf"), False, len(wanted), reason)
    return Compared(nodes, worst, worst != float("inf"), len(wanted))


def main() -> None:
    """Compare every result with the model of that name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    asked = parser.parse_args()
    subject = subjects(asked.zoo, asked.cache)[asked.model]
    wanted = reference(subject)
    for path in asked.results:
        original = path.resolve() == subject.path.resolve()
        print(json.dumps(asdict(compare(subject, path, wanted, optimized=original))), flush=True)


if __name__ == "__main__":
    main()
