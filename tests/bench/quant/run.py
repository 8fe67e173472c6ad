"""Quantizers side by side: metric, agreement, SQNR, latency, size, seconds and memory.

python -m tests.bench.quant.run [--models a,b] [--peers x,y] [--out docs/QUANT.md]

Makes the environments of the peers where they are not there. What was measured stays in --work: of
a peer for its version and settings, of ours for these sources, so a run that was stopped goes on.
In --out, models that are not named keep what they have.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tests.bench.cases import COMMITTED, OUTSIDE, load_case
from tests.bench.quant.findings import Finding
from tests.bench.quant.measure import THREADS, Bench
from tests.bench.quant.report import kept, write
from tests.bench.quant.tools import PEERS, Tool, environments, tools
from tests.bench.simplify.report import commit
from tests.bench.simplify.store import Store

MODELS = (*OUTSIDE, "magika", "basic_pitch", "openwakeword", *COMMITTED)
_PHASES = ("compile", "race", "table")
_HOME = Path.home() / ".cache" / "onnxslim" / "quant"


def compile_all(bench: Bench, name: str, chosen: Sequence[Tool]) -> None:
    """What every tool makes of one model."""
    case = load_case(name)
    for tool in chosen:
        found = bench.result(case, tool)
        text = found["failure"] or f"{found['metric']:.4f}, {found['sqnr_db']:.1f} dB"
        print(f"{name}: {tool.label}: {text}, {found['seconds']:.1f} s", flush=True)


def race_all(bench: Bench, name: str, chosen: Sequence[Tool], budget_s: float) -> None:
    """Latency of all results of one model."""
    case = load_case(name)
    for threads in THREADS:
        found = bench.race(case, chosen, threads, budget_s)
        ours = found.get("speeds", {}).get(chosen[0].label)
        print(f"{name}: {threads} threads: {ours} {found.get('failure', '')}", flush=True)


def collect(bench: Bench, name: str, chosen: Sequence[Tool]) -> Finding:
    """What is noted of one model."""
    case = load_case(name)
    records = {tool.label: bench.noted(case, tool) for tool in chosen}
    return Finding(
        name,
        case.metric_name,
        {label: record for label, record in records.items() if record},
        {threads: bench.raced(case, threads) for threads in THREADS},
        commit(),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--peers", default=",".join(peer.name for peer in PEERS))
    parser.add_argument("--phases", default=",".join(_PHASES))
    parser.add_argument("--environments", type=Path, default=_HOME / "peers")
    parser.add_argument("--work", type=Path, default=_HOME / "results")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of timing per race")
    parser.add_argument("--out", type=Path, help="a Markdown file; a .json is written beside it")
    return parser.parse_args()


def main() -> None:
    """The phases in turn."""
    asked = _arguments()
    phases, models = asked.phases.split(","), asked.models.split(",")
    pythons = environments(asked.environments, tuple(asked.peers.split(",")))
    bench = Bench(Store(asked.work), asked.work / "files")
    for name in models:
        if "compile" in phases:
            compile_all(bench, name, tools(name, pythons))
        if "race" in phases:
            race_all(bench, name, tools(name, pythons), asked.budget)
    if "table" in phases and asked.out is not None:
        findings = [collect(bench, name, tools(name, pythons)) for name in models]
        every = [*kept(asked.out, models), *findings]
        write(sorted(every, key=lambda found: MODELS.index(found.model)), asked.out)


if __name__ == "__main__":
    main()
