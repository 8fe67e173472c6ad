"""Measures one quantized model: what compiling took, what it scores, and all results in a race."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxslim.runtime.latency import LatencyResult, interleaved_latency
from tests.bench.cases import Case, load_case
from tests.bench.compilers import watch
from tests.bench.quant.tools import Tool
from tests.bench.simplify.latency import open_file
from tests.bench.simplify.store import Record, Store
from tests.bench.simplify.tools import ROOT
from tests.bench.table import machine

LIMIT_S = 420  # a compile that takes longer is ended
THREADS = (1, 2)
_ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


def digest_of(path: Path) -> str:
    """Of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


@dataclass(frozen=True)
class Bench:
    """`files`: where compiled models stay, so that a race needs no compile."""

    store: Store
    files: Path

    def result(self, case: Case, tool: Tool) -> Record:
        """Seconds, memory, size and scores of one setting; compiled if that is not noted."""
        return self.store.need(
            case.name, tool.file, self._key(case, tool), lambda: self._make(case, tool)
        )

    def noted(self, case: Case, tool: Tool) -> Record | None:
        """What `result` has measured already."""
        return self.store.get(case.name, tool.file, self._key(case, tool))

    def _key(self, case: Case, tool: Tool) -> str:
        # sums of products saturate on some processors, so scores differ as well
        return f"{digest_of(case.model)} {tool.version} {machine()['processor']}"

    def path(self, case: Case, tool: Tool) -> Path:
        """Where the compiled model is."""
        return self.files / case.name / tool.file

    def _make(self, case: Case, tool: Tool) -> Record:
        out = self.path(case, tool)
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.glob(f"{out.name}*"):  # weights beside it, too
            left.unlink()
        took = watch(["timeout", str(LIMIT_S), *tool.command(case, out)], out)
        record: Record = {**asdict(took), "file": ""}
        if not took.failure and not out.exists():
            record["failure"] = "wrote nothing"
        if record["failure"]:
            return record
        size = sum(path.stat().st_size for path in out.parent.glob(f"{out.name}*"))
        record.update(size=size / case.model.stat().st_size, file=digest_of(out))
        return record | self._ask("score", case.name, [out])

    def race(self, case: Case, chosen: Sequence[Tool], threads: int, budget_s: float) -> Record:
        """Latency of all results that run, in turns, beside FP32's."""
        found = {tool: self.noted(case, tool) for tool in chosen}
        good = [tool for tool, record in found.items() if record and not record["failure"]]
        files = [str((found[t] or {})["file"]) for t in good]
        key = " ".join([digest_of(case.model), machine()["processor"], *files])

        def make() -> Record:
            paths = [self.path(case, tool) for tool in good]
            more = ["--threads", str(threads), "--budget", str(budget_s)]
            times = self._ask("race", case.name, paths, more)
            labels = [tool.label for tool in good]
            return {**times, "speeds": dict(zip(labels, times["speeds"], strict=True))}

        return self.store.need(case.name, f"race {threads}", key, make)

    def raced(self, case: Case, threads: int) -> Record:
        """The last race, whatever it was made for."""
        return self.store.newest(case.name, f"race {threads}") or {}

    def _ask(self, what: str, name: str, paths: Sequence[Path], more: Sequence[str] = ()) -> Record:
        command = [sys.executable, "-m", __spec__.name, what, name, *map(str, paths), *more]
        done = subprocess.run(command, cwd=ROOT, env=_ENV, stdout=subprocess.PIPE)
        if done.returncode:
            return {"failure": f"the result does not run: exit status {done.returncode}"}
        answer: Record = json.loads(done.stdout)
        return answer


def score(case: Case, path: Path) -> Record:
    """Metric, agreement and SQNR on the evaluation samples, or why they could not be had."""
    reference = case.run(case.model)
    fp32 = case.metric(reference, case.labels)
    try:
        scored = case.score(path, reference)
    except Exception as error:  # noqa: BLE001 - the runtime's errors have no common class
        reason = str(error).replace(f"{path.parent}{os.sep}", "").partition("\n")[0]
        return {"failure": f"the result does not run: {reason[:200]}"}
    return {"fp32": fp32, **asdict(scored)}


def speeds(times: LatencyResult) -> list[tuple[float, float, float]]:
    """FP32's time over each file's: the median and its 99 % interval."""
    found: list[tuple[float, float, float]] = []
    for model in range(1, len(times.rounds[0])):
        low, high = times.interval(model)
        found.append((1 / times.ratio(model), 1 / high, 1 / low))
    return found


def race(case: Case, paths: Sequence[Path], threads: int, budget_s: float) -> Mapping[str, Any]:
    """All files in turns on one evaluation sample."""
    sessions = [open_file(path, threads) for path in (case.model, *paths)]
    times = interleaved_latency(sessions, case.feeds[0], threads, budget_s)
    return {"ms": times.ms[0], "rounds": len(times.rounds), "speeds": speeds(times)}


def main() -> None:
    """One JSON object on the standard output."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("score", "race"))
    parser.add_argument("model")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=20.0)
    asked = parser.parse_args()
    case = load_case(asked.model)
    if asked.what == "score":
        print(json.dumps(score(case, asked.files[0])))
    else:
        print(json.dumps(race(case, asked.files, asked.threads, asked.budget)))


if __name__ == "__main__":
    main()
