"""The findings as Markdown and JSON."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.simplify.findings import EQUAL, Finding, growth, summary
from tests.bench.simplify.measure import Bench
from tests.bench.simplify.store import Record
from tests.bench.simplify.subjects import SEED, Subject
from tests.bench.simplify.tools import OURS, PEERS, PINS, ROOT, Tool
from tests.bench.table import machine

_INTRO = f"""# Simplification

Written by `python -m tests.bench.simplify.run --out docs/SIMPLIFY.md`. All nodes are counted:
constants too, and those of subgraphs. *Difference* is the largest over all outputs and batches 1,
2 and 3, relative to the largest value of the output, both files run by ONNX Runtime without
optimizations; a count with a difference over {EQUAL:.0e} is struck out. *Reordered* is the same
between ONNX Runtime with and without its own optimizations on the original: what float rounding
alone does. *Latency* is that of the simplified file over the original's, one thread, batch 1, all
of ONNX Runtime's optimizations, medians of rounds in turns in one process, with the 99 % interval;
*again* is the original over itself. Seconds and peak memory are those of whole processes that
load, simplify and save, without a check by running: the best of three, tools in turns; what takes
over 8 s runs once. `_fresh` exports have the weights of their constructors, the other exports a
random spread; an export is at opset 17 with a dynamic batch.
"""


def collect(bench: Bench, known: Mapping[str, Subject], tools: Sequence[Tool]) -> list[Finding]:
    """What is in the store for these versions."""
    found: list[Finding] = []
    mine = next(tool for tool in tools if tool.name == OURS)
    for subject in known.values():
        results = bench.noted(subject, tools)
        if results.get(OURS):
            race = bench.raced(subject, mine)
            found.append(
                Finding(
                    subject.name,
                    subject.path.stat().st_size / 1e6,
                    bench.original(subject),
                    results,
                    race.get("tools", {}),
                    race.get("latency", {}),
                )
            )
    return found


def write(bench: Bench, known: Mapping[str, Subject], tools: Sequence[Tool], out: Path) -> None:
    """Both files."""
    found = collect(bench, known, tools)
    peers = {pin.partition("==")[0]: pin.partition("==")[2] for pin in PINS.values()}
    about = {**machine(), **peers, "seed": str(SEED), "commit": commit()}
    scale = {t.name: bench.store.get("scale", t.name, t.version) or {} for t in tools}
    failed = _failed(bench.zoo)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(markdown(found, about, scale, failed), encoding="utf-8")
    content: dict[str, Any] = {
        "machine": about,
        "models": [vars(finding) for finding in found],
        "scale": scale,
        "not exported": failed,
    }
    out.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def commit() -> str:
    """Of the working tree, with a plus where sources differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE)
    sources = ["onnxslim", "passes"]
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *sources]).returncode
    return head.stdout.decode().strip() + ("+" if changed else "")


def _failed(zoo: Path) -> dict[str, str]:
    path = zoo / "failed.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def markdown(
    found: Sequence[Finding],
    about: Mapping[str, str],
    scale: Mapping[str, Record],
    failed: Mapping[str, str],
) -> str:
    """The summary, then the tables."""
    beside = [finding for finding in found if len(finding.race) > 1]
    parts = [
        _INTRO,
        "Measured with " + ", ".join(f"{k} {v}" for k, v in about.items()) + ".\n",
        "## Summary\n\n" + "\n".join([*summary(found), growth(scale)]) + "\n",
        "## Nodes\n\n" + _nodes(found),
        "## Seconds and peak memory (MB), side by side\n\n" + _race(beside),
        "## Latency, side by side\n\n" + _latency(beside),
        "## Scale\n\n" + _scale(scale),
    ]
    if failed:
        lines = [f"- {name}: {reason}" for name, reason in failed.items()]
        parts.append("## Not exported\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _nodes(found: Sequence[Finding]) -> str:
    head = ("model", "original", OURS, *PEERS, "difference", "reordered", "latency", "again")
    rows = [
        (
            f.model,
            str(f.original["nodes"]),
            _count(f, OURS, bold=(f.lead or 0) > 0),
            *(_count(f, peer) for peer in PEERS),
            f"{f.results[OURS].get('difference', float('nan')):.0e}",
            f"{f.original['difference']:.0e}",
            _speed(f, OURS),
            f"{f.latency['again']:.2f}" if f.latency else "",
        )
        for f in found
    ]
    return _table(head, rows)


def _count(finding: Finding, tool: str, *, bold: bool = False) -> str:
    nodes = finding.results.get(tool, {}).get("nodes")
    if nodes is None:
        return "failed" if tool in finding.results else ""
    if not finding.is_equal(tool):
        return f"~~{nodes}~~"
    return f"**{nodes}**" if bold else str(nodes)


def _speed(finding: Finding, tool: str) -> str:
    if tool not in finding.latency.get("ratios", {}):
        return ""
    ratio, low, high = finding.latency["ratios"][tool]
    return f"{ratio:.2f} ({low:.2f}-{high:.2f})"


def _race(found: Sequence[Finding]) -> str:
    tools = list(dict.fromkeys(tool for f in found for tool in f.race))
    rows = [
        (f.model, f"{f.file_mb:.0f} MB", *(_cost(f.race.get(tool, {})) for tool in tools))
        for f in found
    ]
    return _table(("model", "file", *tools), rows)


def _cost(record: Record) -> str:
    if record.get("failure", "not run"):
        return "failed"
    return f"{record['seconds']:.2f} s, {record['peak_mb']:.0f}"


def _latency(found: Sequence[Finding]) -> str:
    rows = [
        (f.model, f"{f.latency['ms']:.1f} ms", *(_speed(f, tool) for tool in (OURS, *PEERS)))
        for f in found
        if f.latency
    ]
    return _table(("model", "original", OURS, *PEERS), rows)


def _scale(scale: Mapping[str, Record]) -> str:
    sizes = list(
        dict.fromkeys(size for record in scale.values() for size in record if size != "key")
    )
    rows = [
        (size, *(_survived(record.get(size, {})) for record in scale.values())) for size in sizes
    ]
    return _table(("model", *scale), rows)


def _survived(record: Record) -> str:
    if record.get("failure", "not run"):
        return "failed"
    nodes = str(record["nodes"]) if record["difference"] <= EQUAL else f"~~{record['nodes']}~~"
    return f"{record['seconds']:.1f} s, {record['peak_mb']:.0f} MB, {nodes} nodes"
