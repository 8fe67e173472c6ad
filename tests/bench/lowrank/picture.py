"""Accuracy against latency of quantization, pruning, factorization and what they give together.

python -m tests.bench.lowrank.picture [NAME...] [--settings 'PATTERN'...] [--out docs/lowrank.svg]

Committed nets are scored on the first 2,000 test images, minilm_l6 on all its texts. Times are
those of one sample on one thread, in turns with FP32, as shares of what FP32 took at first. Each
point is drawn as soon as it is known; the others stay as the JSON beside the picture has them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from html import escape
from pathlib import Path
from typing import Any

from onnxslim import ir
from onnxslim.runtime.latency import interleaved_latency
from tests.bench.cases import COMMITTED, load_case
from tests.bench.compilers import watch

IMAGES = 2000
SECONDS = 4.0  # of timing a point
FP32 = "FP32"
NET = (
    "quant",
    "prune{ratio=0.6}",
    "lowrank{ratio=0.6}",
    "lowrank{ratio=0.6},quant",
    "quant,lowrank{ratio=0.6}",
    "prune{ratio=0.75},lowrank{ratio=0.8},quant",
)
PIPELINES: Mapping[str, Sequence[str]] = {
    "fashion_vgg": NET,
    "fashion_resnet": NET,
    "minilm_l6": ("quant", "prune{share=0.15 only=hidden}", "lowrank{ratio=0.9}",
                  "lowrank{ratio=0.9},quant"),
}  # fmt: skip
WIDTH, HEIGHT, MARGIN = 420, 320, 56
COLOURS = ("#1f77b4", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#000000")


@dataclass(frozen=True)
class Point:
    """One file of a model."""

    model: str
    label: str
    ms: float
    metric: float


Points = dict[tuple[str, str], Point]
"""By model and label."""


def measure(name: str, folder: Path, patterns: Sequence[str], known: Points) -> Iterator[Point]:
    """FP32, if it is not known, and every pipeline that is asked for and compiles."""
    case = load_case(name)
    if name in COMMITTED:
        case = replace(case, feeds=case.feeds[:IMAGES], labels=case.labels[:IMAGES])
    whole = ir.load(case.model)
    start = known.get((name, FP32))
    if start is None:
        ms = interleaved_latency([whole], case.feeds[0], 1, SECONDS).ms[0]
        start = Point(name, FP32, ms, case.metric(case.run(case.model), case.labels))
        yield start
    for number, passes in enumerate(PIPELINES[name]):
        if not any(fnmatchcase(passes, pattern) for pattern in patterns):
            continue
        out = folder / f"{name}_{number}.onnx"
        command = [sys.executable, "-m", "onnxslim", str(case.model), str(out), "--calib",
                   str(case.calib), "--passes", f"simplify,{passes}", "--quiet", "--no-check",
                   "--allow-slower", "--threads", "2"]  # fmt: skip
        took = watch(command, out)
        print(f"{name} {passes}: {took.seconds:.0f} s {took.failure}", flush=True)
        if not took.failure:
            turns = interleaved_latency([whole, ir.load(out)], case.feeds[0], 1, SECONDS)
            metric = case.metric(case.run(out), case.labels)
            yield Point(name, passes, start.ms * turns.ratio(), metric)


def ordered(points: Points) -> list[Point]:
    """FP32 first, pipelines in their order."""
    keys = [(name, label) for name, labels in PIPELINES.items() for label in (FP32, *labels)]
    return [points[key] for key in keys if key in points]


def drawing(points: Sequence[Point]) -> str:
    """One panel per model: milliseconds to the right, the metric upwards."""
    names = list(dict.fromkeys(point.model for point in points))
    height = HEIGHT + 18 * max(sum(p.model == name for p in points) for name in names)
    panels = [
        f'<g transform="translate({n * WIDTH} 0)">{_panel(name, points)}</g>'
        for n, name in enumerate(names)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(names)} {height}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(panels)}</svg>\n"
    )


def _panel(name: str, points: Sequence[Point]) -> str:
    some = [point for point in points if point.model == name]
    most = 1.1 * max(p.ms for p in some)
    low, high = min(p.metric for p in some), max(p.metric for p in some)
    room = 0.15 * (high - low) or 0.01
    low, high = low - room, high + room

    def x(ms: float) -> float:
        return MARGIN + (WIDTH - 1.5 * MARGIN) * ms / most

    def y(metric: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 1.6 * MARGIN) * (metric - low) / (high - low)

    parts = [
        f'<text x="{MARGIN}" y="24" font-size="14">{escape(name)}</text>',
        f'<path d="M{MARGIN} {0.6 * MARGIN} V{HEIGHT - MARGIN} H{WIDTH - 0.5 * MARGIN}" '
        'fill="none" stroke="black"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 22}">ms of one sample</text>',
    ]
    for share in (0.25, 0.5, 0.75, 1.0):
        ms = share * most / 1.1
        parts.append(
            f'<text x="{x(ms):.0f}" y="{HEIGHT - MARGIN + 14}" text-anchor="middle">{ms:.2g}</text>'
        )
        value = low + share * (high - low)
        parts.append(
            f'<text x="{MARGIN - 4}" y="{y(value):.0f}" text-anchor="end">{value:.3f}</text>'
        )
    for number, point in enumerate(some):
        colour, at = COLOURS[number % len(COLOURS)], HEIGHT + 18 * number
        parts += [
            f'<circle cx="{x(point.ms):.1f}" cy="{y(point.metric):.1f}" r="5" fill="{colour}"/>',
            f'<circle cx="{MARGIN}" cy="{at - 4}" r="5" fill="{colour}"/>',
            f'<text x="{MARGIN + 12}" y="{at}">{escape(point.label)}: {point.metric:.4f}, '
            f"{point.ms:.2f} ms</text>",
        ]
    return "".join(parts)


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=tuple(PIPELINES))
    parser.add_argument("--settings", nargs="*", default=("*",), help="of these pipelines alone")
    parser.add_argument("--out", type=Path, default=Path("docs/lowrank.svg"))
    asked = parser.parse_args()
    beside: Path = asked.out.with_suffix(".json")
    kept: list[dict[str, Any]] = json.loads(beside.read_text("utf-8")) if beside.exists() else []
    points: Points = {(p["model"], p["label"]): Point(**p) for p in kept}
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.names:
            for point in measure(name, Path(folder), asked.settings, points):
                points[point.model, point.label] = point
                found = ordered(points)
                asked.out.write_text(drawing(found), encoding="utf-8")
                content = json.dumps([asdict(p) for p in found], indent=1) + "\n"
                beside.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
