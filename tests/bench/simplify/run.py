"""Simplifiers side by side: nodes, outputs, seconds, memory, and the latency of what they leave.

python -m tests.bench.simplify.run [--models a,b] [--tools x,y] [--out docs/SIMPLIFY.md]

Makes the environments of the peers and of the export where they are not there. What was measured
stays in --work: the counts of a peer are those of its version, ours those of these sources, so a
run that was stopped goes on and a later one repeats only what changed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.simplify import scale
from tests.bench.simplify.measure import Bench
from tests.bench.simplify.report import write
from tests.bench.simplify.store import Store
from tests.bench.simplify.subjects import FRESH, SHIPPED, Subject, subjects
from tests.bench.simplify.tools import (
    CHECKED,
    OURS,
    PEERS,
    ROOT,
    Tool,
    make_exporter,
    make_peers,
    ours,
    peers,
)

_PHASES = ("export", "results", "race", "scale", "table")
_HOME = Path.home() / ".cache" / "onnxslim" / "simplify"


def export(python: str, zoo: Path, names: Sequence[str] = ()) -> None:
    """Export what is not there, of all or of these; one thread is as fast."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [python, "-m", "tests.bench.simplify.export", str(zoo), *names]
    subprocess.run(command, check=True, cwd=ROOT, env=env)


def results(bench: Bench, chosen: Sequence[Subject], tools: Sequence[Tool]) -> None:
    """What every tool leaves of every model."""
    for subject in chosen:
        counts = [f"exported {bench.original(subject)['nodes']}"]
        for name, record in bench.results(subject, tools).items():
            gap = record.get("difference", 0.0)
            counts.append(f"{name} {record['nodes']} ({record['failure'][:60] or f'{gap:.0e}'})")
        print(f"{subject.name}: {', '.join(counts)}", flush=True)


def race(
    bench: Bench, chosen: Sequence[Subject], tools: Sequence[Tool], beside: Sequence[str]
) -> None:
    """Seconds and latency: of all tools in turns for some models, of ours for the others."""
    mine = next(tool for tool in tools if tool.name == OURS)
    for subject in chosen:
        raced = subject.name in beside
        found = bench.side_by_side(subject, tools) if raced else bench.alone(subject, mine)
        took = [f"{name} {record['seconds']:.2f} s" for name, record in found["tools"].items()]
        speed = found["latency"].get("ratios", {}).get(OURS)
        print(f"{subject.name}: {', '.join(took)}; latency {speed}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", help="names; without it all that are there")
    parser.add_argument("--tools", default=",".join((OURS, *PEERS)))
    parser.add_argument("--side-by-side", default=",".join((*FRESH, *SHIPPED)))
    parser.add_argument("--phases", default=",".join(_PHASES))
    parser.add_argument("--peers", type=Path, default=_HOME / "peers", help="their environment")
    parser.add_argument("--exporter", type=Path, default=_HOME / "exporter")
    parser.add_argument("--zoo", type=Path, default=_HOME / "zoo", help="where the exports go")
    parser.add_argument("--work", type=Path, default=_HOME / "results")
    parser.add_argument("--cache", type=Path, help="where the outside models are")
    parser.add_argument("--out", type=Path, help="a Markdown file; a .json is written beside it")
    return parser.parse_args()


def main() -> None:
    """The phases in turn."""
    asked = _arguments()
    phases = asked.phases.split(",")
    if "export" in phases:
        export(make_exporter(asked.exporter), asked.zoo)
    known = subjects(asked.zoo, asked.cache)
    chosen = [known[name] for name in (asked.models.split(",") if asked.models else known)]
    wanted = asked.tools.split(",")
    tools = [ours(), *peers(make_peers(asked.peers))]
    tools = [tool for tool in tools if tool.name in wanted]
    bench = Bench(asked.zoo, Store(asked.work))
    if "results" in phases:
        results(bench, chosen, tools)
    if "race" in phases:
        race(bench, chosen, [*tools, ours(CHECKED)], asked.side_by_side.split(","))
    if "scale" in phases:
        scale.measure(bench.store, tools)
    if "table" in phases and asked.out is not None:
        write(bench, known, tools, asked.out)


if __name__ == "__main__":
    main()
