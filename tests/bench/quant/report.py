"""The side-by-side as Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.bench.quant.findings import Finding, Speed
from tests.bench.quant.tools import OURS, PEERS
from tests.bench.simplify.store import Record
from tests.bench.table import machine

_INTRO = """# Quantizers side by side

Written by `python -m tests.bench.quant.run --out docs/QUANT.md`. All tools get the same unlabelled
calibration samples and the float file as it is; none sees the evaluation samples, on which metric,
*agreement* (share of samples with FP32's top-1) and *SQNR* of the outputs are measured. *Speed* is
FP32 milliseconds over the setting's, one sample, all files of a model in turns in one process with
ONNX Runtime, whose threads sleep between turns; the median of rounds with its 99 % interval. *Size*
is bytes over FP32's. *CPU s* (of all processors together, which a shared machine hardly changes)
and *peak* are those of the whole compile process. Ours is `--passes simplify,quant` with its
defaults, seed 0. A sample of openwakeword is a clip of 22 windows. Peers run in their own
environments, prepared as their guides say: converted to opset 17 where scales per channel need it,
pre-processed by ONNX Runtime where they do not fold BatchNormalization themselves; AdaRound with
100 iterations a layer. A setting without a row was not measured on this processor.
"""
_HEAD = (
    "setting",
    "metric",
    "agreement",
    "SQNR dB",
    "speed, 1 thread",
    "speed, 2 threads",
    "size",
    "CPU s",
    "peak MB",
)
_SUMMARY = (
    "model",
    "FP32",
    "ours",
    "most accurate peer",
    "fastest peer",
    "ours at least as accurate and faster",
    "both faster and more accurate than ours",
)


def kept(out: Path, names: Sequence[str]) -> list[Finding]:
    """What an earlier run wrote of models that are not named."""
    path = out.with_suffix(".json")
    if not path.exists():
        return []
    stored = json.loads(path.read_text(encoding="utf-8"))
    return [
        Finding(
            found["model"],
            found["metric_name"],
            found["records"],
            {int(threads): race for threads, race in found["races"].items()},
            found.get("commit", stored["machine"]["commit"]),
        )
        for found in stored["models"]
        if found["model"] not in names
    ]


def _commits(findings: Sequence[Finding]) -> str:
    """Of all models, or each with the models that were measured at it."""
    by_commit: dict[str, list[str]] = {}
    for finding in findings:
        by_commit.setdefault(finding.commit, []).append(finding.model)
    if len(by_commit) == 1:
        return next(iter(by_commit))
    return ", ".join(f"{commit} ({' '.join(models)})" for commit, models in by_commit.items())


def write(findings: Sequence[Finding], out: Path) -> None:
    """Both files."""
    pins = dict(name.split("==") for peer in PEERS for name in peer.packages[-1] if "==" in name)
    about = {**pins, **machine(), "seed": "0", "commit": _commits(findings)}
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = [_INTRO, ", ".join(f"{k} {v}" for k, v in about.items()), "", *_summary(findings)]
    for finding in findings:
        lines += ["", f"## {finding.model}: {finding.metric_name}", "", *_table(finding)]
    out.write_text("\n".join([*lines, ""]), encoding="utf-8")
    content = {"machine": about, "models": [asdict(finding) for finding in findings]}
    out.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _rows(rows: Iterable[Iterable[str]], head: Sequence[str]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _summary(findings: Sequence[Finding]) -> list[str]:
    good = [finding for finding in findings if not finding.records[OURS]["failure"]]
    return _rows((_summed(finding) for finding in good), _SUMMARY)


def _summed(finding: Finding) -> Iterable[str]:
    better = {f"{label} ({n})" for n in (1, 2) for label in finding.better_than_ours(n)}
    yield finding.model
    yield f"{finding.records[OURS]['fp32']:.4f}"
    for label in (OURS, finding.most_accurate(), finding.fastest()):
        yield "" if label is None else _point(finding, label)
    yield f"{len(finding.matched_by_ours())} of {len(finding.rivals)}"
    yield ", ".join(sorted(better)) or "none"


def _point(finding: Finding, label: str) -> str:
    found = finding.speed(label)
    name = "" if label == OURS else f"{label}: "
    return f"{name}{finding.metric(label):.4f} at {0.0 if found is None else found[0]:.2f}x"


def _table(finding: Finding) -> list[str]:
    return _rows(
        (_cells(finding, label, record) for label, record in finding.records.items()), _HEAD
    )


def _cells(finding: Finding, label: str, record: Record) -> Iterable[str]:
    yield label
    if record["failure"]:
        yield f"failed: {record['failure'][:140]}".replace("|", "/")
        yield from [""] * 5
    else:
        yield f"{record['metric']:.4f}"
        yield "" if record["agreement"] is None else f"{record['agreement']:.4f}"
        yield f"{record['sqnr_db']:.1f}"
        yield _span(finding.speed(label, 1))
        yield _span(finding.speed(label, 2))
        yield f"{record['size']:.3f}"
    yield f"{record['cpu_s']:.1f}"
    yield f"{record['peak_mb']:.0f}"


def _span(found: Speed | None) -> str:
    return "" if found is None else f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"
