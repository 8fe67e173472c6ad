"""Latency of files beside the original's, in turns: a process of its own.

python -m tests.bench.simplify.latency MODEL RESULT... (one JSON object)

ONNX Runtime with all of its optimizations, one thread, batch 1. The original is opened twice: how
far apart its two sessions are is part of the noise.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import onnxruntime as ort

from onnxslim import ir
from onnxslim.runtime.latency import LatencyResult, interleaved_latency
from onnxslim.runtime.session import Session, input_infos
from tests.bench.simplify.subjects import subjects

_runtime: Any = ort  # untyped


def open_file(path: Path, threads: int = 1) -> Session:
    """The file as it lies on disk.

    With several threads these sleep between runs: spinning, they would take the cores from the
    session whose turn it is.
    """
    options = _runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    opened = _runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Session(opened, input_infos(ir.read_unchecked(path)))


def ratios(times: LatencyResult) -> dict[str, Any]:
    """Milliseconds of the original, and of each file the ratio to it with its 99 % interval."""
    count = len(times.rounds[0])
    return {
        "ms": times.ms[0],
        "again": times.ratio(1),
        "rounds": len(times.rounds),
        "ratios": [[times.ratio(i), *times.interval(i)] for i in range(2, count)],
    }


def main() -> None:
    """Time the files beside the model of that name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--budget", type=float, default=5.0)
    asked = parser.parse_args()
    subject = subjects(asked.zoo, asked.cache)[asked.model]
    paths = (subject.path, subject.path, *asked.results)
    sessions = [open_file(path) for path in paths]
    print(json.dumps(ratios(interleaved_latency(sessions, subject.feed(1), 1, asked.budget))))


if __name__ == "__main__":
    main()
