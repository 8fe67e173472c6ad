"""Measured rows as Markdown and JSON."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PACKAGES = ("onnx", "onnx-ir", "onnxruntime", "numpy", "scipy")
HEAD = ("setting", "metric", "drop", "agreement", "SQNR dB", "speed", "size", "seconds", "peak MB")


@dataclass(frozen=True)
class Row:
    """One model compiled in one way. Ratios are against the FP32 file."""

    model: str
    metric_name: str
    setting: str
    failure: str = ""
    metric: float | None = None
    drop: float | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    speed: float | None = None  # FP32 milliseconds / these, medians of interleaved rounds
    speed_low: float | None = None  # 99 % confidence interval of the median
    speed_high: float | None = None
    latency_ms: float | None = None
    size: float | None = None  # bytes / FP32's bytes
    seconds: float | None = None
    peak_mb: float | None = None


def rows_of_others(path: Path, models: Sequence[str]) -> list[dict[str, Any]]:
    """The rows in a .json of an earlier run, where there is one, but those of `models`."""
    if not path.exists():
        return []
    stored: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [row for row in stored if row["model"] not in models]


SETS = {"avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI", "avx2": "AVX2, no VNNI"}
"""Instruction sets of which the first found says how int8 runs."""


def machine() -> dict[str, str]:
    """Processor, Python and versions."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    flags = ""
    if info.exists():
        fields = dict(_field(line) for line in info.read_text().splitlines() if ":" in line)
        cpu = fields.get("model name", cpu)
        names = fields.get("flags", "").split()
        flags = next((f" with {label}" for flag, label in SETS.items() if flag in names), "")
    return {
        "processor": cpu + flags,
        "python": sys.version.split()[0],
        **{name: version(name) for name in PACKAGES},
    }


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def markdown(rows: Sequence[Row], about: Mapping[str, str], intro: Iterable[str]) -> str:
    """One table per model."""
    lines = [*intro, ""]
    lines += ["Measured with " + ", ".join(f"{k} {v}" for k, v in about.items()) + ".", ""]
    for name in dict.fromkeys(row.model for row in rows):
        some = [row for row in rows if row.model == name]
        lines += [f"## {name}, {some[0].metric_name}", ""]
        lines += ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
        lines += [_line(row) for row in some] + [""]
    return "\n".join(lines)


def _line(row: Row) -> str:
    if row.failure:
        return f"| {row.setting} | failed: {row.failure[:160]} |" + " |" * (len(HEAD) - 2)
    speed = (
        "" if row.speed is None else f"{row.speed:.2f} ({row.speed_low:.2f}-{row.speed_high:.2f})"
    )
    cells = (
        row.setting,
        _number(row.metric, 4),
        _number(row.drop, 4),
        _number(row.agreement, 4),
        _number(row.sqnr_db, 1),
        speed,
        _number(row.size, 3),
        _number(row.seconds, 1),
        _number(row.peak_mb, 0),
    )
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def as_json(rows: Sequence[DataclassInstance], about: Mapping[str, str]) -> str:
    """The same, for programs."""
    return json.dumps({"machine": about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"


def save(out: Path, text: str, rows: Sequence[DataclassInstance]) -> None:
    """Write a document, and a .json of its rows beside it."""
    out.write_text(text, encoding="utf-8")
    out.with_suffix(".json").write_text(as_json(rows, machine()), encoding="utf-8")
