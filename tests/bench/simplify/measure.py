"""Measures one model: what every tool leaves, how long each takes, how fast the results are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.compilers import Compiled, watch
from tests.bench.simplify.store import Record, Store
from tests.bench.simplify.subjects import Subject
from tests.bench.simplify.tools import CHECKED, OURS, ROOT, Tool

_REPEATS = 3
_SLOW_S = 8.0  # what takes longer is run once: its noise is small beside it
_BUDGETS = (3.0, 15.0)  # seconds of timing; the second where the first shows a slower model
_ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
SLOWER = 0.02


@dataclass(frozen=True)
class Bench:
    """Where the exports are and where results go."""

    zoo: Path
    store: Store

    def results(self, subject: Subject, tools: Sequence[Tool]) -> dict[str, Record]:
        """Nodes and differences by tool, with seconds and memory of a single run."""
        digest = subject.digest
        missing = [t for t in tools if not self._result(subject, digest, t)]
        if missing:
            with tempfile.TemporaryDirectory() as folder:
                files = {t: Path(folder, f"{t.name.partition(',')[0]}.onnx") for t in missing}
                runs = {
                    tool: watch(tool.command(subject.path, files[tool]), files[tool])
                    for tool in missing
                }
                self._note(subject, digest, runs, files)
        return {t.name: self._result(subject, digest, t) or {} for t in tools}

    def noted(self, subject: Subject, tools: Sequence[Tool]) -> dict[str, Record]:
        """What `results` has measured already."""
        digest = subject.digest
        found = {tool.name: self._result(subject, digest, tool) for tool in tools}
        return {name: record for name, record in found.items() if record}

    def raced(self, subject: Subject, mine: Tool) -> Record:
        """What `side_by_side` or `alone` has measured with these sources."""
        key = f"{subject.digest} {OURS}={mine.version}"
        for kind in ("side by side", "alone"):
            found = self.store.newest(subject.name, kind)
            if found and str(found["key"]).startswith(key):
                return found
        return {}

    def original(self, subject: Subject) -> Record:
        """Nodes of the original, and how far ONNX Runtime's own optimizations move its outputs."""
        return self.store.need(
            subject.name,
            "original",
            subject.digest,
            lambda: self._compare(subject, [subject.path])[0],
        )

    def _result(self, subject: Subject, digest: str, tool: Tool) -> Record | None:
        return self.store.get(subject.name, tool.name, f"{digest} {tool.version}")

    def _note(
        self, subject: Subject, digest: str, runs: dict[Tool, Compiled], files: dict[Tool, Path]
    ) -> None:
        good = [tool for tool, run in runs.items() if not run.failure and files[tool].exists()]
        found = self._compare(subject, [files[tool] for tool in good])
        compared = dict(zip(good, found, strict=True))
        for tool, run in runs.items():
            record: Record = {"failure": run.failure or "wrote nothing", "nodes": None}
            record.update(compared.get(tool, {}))
            record.update(seconds=run.seconds, peak_mb=run.peak_mb)
            self.store.put(subject.name, tool.name, f"{digest} {tool.version}", record)

    def side_by_side(self, subject: Subject, tools: Sequence[Tool]) -> Record:
        """The least seconds and the peak of each tool in turns, and the latency of all results."""
        key = " ".join((subject.digest, *(f"{t.name}={t.version}" for t in tools)))
        return self.store.need(
            subject.name, "side by side", key, lambda: self._race(subject, tools)
        )

    def _race(self, subject: Subject, tools: Sequence[Tool]) -> Record:
        runs: dict[str, list[Compiled]] = {tool.name: [] for tool in tools}
        with tempfile.TemporaryDirectory() as folder:
            files = {t.name: Path(folder, f"{number}.onnx") for number, t in enumerate(tools)}
            for _ in range(_REPEATS):
                for tool in tools:
                    done = runs[tool.name]
                    if done and (tool.name == CHECKED or _is_settled(done[0])):
                        continue
                    done.append(
                        watch(tool.command(subject.path, files[tool.name]), files[tool.name])
                    )
            raced: Record = {
                name: {
                    "seconds": min(run.seconds for run in done),
                    "peak_mb": max(run.peak_mb for run in done),
                    "runs": len(done),
                    "failure": done[0].failure,
                }
                for name, done in runs.items()
            }
            runnable = [name for name in raced if self._runs(subject, files[name])]
            latency = self._latency(subject, {name: files[name] for name in runnable})
        return {"tools": raced, "latency": latency}

    def _runs(self, subject: Subject, path: Path) -> bool:
        return path.exists() and not self._compare(subject, [path])[0]["failure"]

    def alone(self, subject: Subject, tool: Tool) -> Record:
        """The latency of our result only."""

        def make() -> Record:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "0.onnx")
                run = watch(tool.command(subject.path, path), path)
                took = {"seconds": run.seconds, "peak_mb": run.peak_mb, "failure": run.failure}
                files = {} if run.failure else {OURS: path}
                return {"tools": {OURS: took}, "latency": self._latency(subject, files)}

        key = f"{subject.digest} {tool.name}={tool.version}"
        return self.store.need(subject.name, "alone", key, make)

    def _latency(self, subject: Subject, files: dict[str, Path]) -> Record:
        found: Record = {}
        for budget in _BUDGETS if files else ():
            scale = 1 + len(files) / 4
            found = self._ask("latency", subject, list(files.values()), budget * scale)[0]
            found["ratios"] = dict(zip(files, found["ratios"], strict=True))
            if OURS not in files or not is_slower(found, OURS):
                break
        return found

    def _compare(self, subject: Subject, paths: Sequence[Path]) -> list[Record]:
        return self._ask("compare", subject, paths) if paths else []

    def _ask(
        self, module: str, subject: Subject, paths: Sequence[Path], budget: float | None = None
    ) -> list[Any]:
        command = [sys.executable, "-m", f"tests.bench.simplify.{module}", subject.name]
        command += [*map(str, paths), "--zoo", str(self.zoo)]
        command += [] if budget is None else ["--budget", str(budget)]
        done = subprocess.run(command, check=True, cwd=ROOT, env=_ENV, stdout=subprocess.PIPE)
        return [json.loads(line) for line in done.stdout.decode().splitlines()]


def _is_settled(run: Compiled) -> bool:
    return bool(run.failure) or run.seconds > _SLOW_S


def is_slower(latency: Record, tool: str) -> bool:
    """Whether a result takes over 2 % longer than the original, beyond the noise."""
    ratio, low, _ = latency["ratios"][tool]
    return bool(low > 1 + SLOWER and ratio > 1 + SLOWER + abs(latency["again"] - 1))
