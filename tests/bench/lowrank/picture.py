"""Accuracy against latency of quantization, pruning, factorization and what they give together.

python -m tests.bench.lowrank.picture [--rows docs/LOWRANK.json] [--out docs/lowrank.svg]

Draws what `tests.bench.lowrank.run` has measured so far of the models named in `PANELS`: their
metric on samples that no compile sees, against the time of one sample as a share of FP32's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from tests.bench.lowrank.report import Row

PANELS = ("fashion_vgg", "fashion_resnet", "minilm_l6_texts")
WIDTH, HEIGHT, MARGIN = 420, 320, 56
COLOURS = ("#000000", "#1f77b4", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#ff7f0e",
           "#17becf", "#7f7f7f")  # fmt: skip


def drawing(rows: Sequence[Row]) -> str:
    """One panel per model: time to the right, the metric upwards."""
    timed = [row for row in rows if row.model in PANELS and row.speed and row.metric is not None]
    names = [name for name in PANELS if any(row.model == name for row in timed)]
    height = HEIGHT + 18 * max(sum(row.model == name for row in timed) for name in names)
    panels = [
        f'<g transform="translate({n * WIDTH} 0)">'
        f"{_panel(name, [row for row in timed if row.model == name])}</g>"
        for n, name in enumerate(names)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(names)} {height}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(panels)}</svg>\n"
    )


def _panel(name: str, rows: Sequence[Row]) -> str:
    found = [(row.setting, 1 / (row.speed or 1.0), row.metric or 0.0) for row in rows]
    most = 1.1 * max(time for _, time, _ in found)
    low, high = min(metric for *_, metric in found), max(metric for *_, metric in found)
    room = 0.15 * (high - low) or 0.01
    low, high = low - room, high + room

    def x(time: float) -> float:
        return MARGIN + (WIDTH - 1.5 * MARGIN) * time / most

    def y(metric: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 1.6 * MARGIN) * (metric - low) / (high - low)

    parts = [
        f'<text x="{MARGIN}" y="24" font-size="14">{escape(name)}</text>',
        f'<path d="M{MARGIN} {0.6 * MARGIN} V{HEIGHT - MARGIN} H{WIDTH - 0.5 * MARGIN}" '
        'fill="none" stroke="black"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 22}" text-anchor="middle">time of one sample, '
        "share of FP32's</text>",
    ]
    for share in (0.25, 0.5, 0.75, 1.0):
        value = low + share * (high - low)
        parts += [
            f'<text x="{x(share):.0f}" y="{HEIGHT - MARGIN + 14}" text-anchor="middle">{share:g}'
            "</text>",
            f'<text x="{MARGIN - 4}" y="{y(value):.0f}" text-anchor="end">{value:.4f}</text>',
        ]
    for number, (setting, time, metric) in enumerate(found):
        colour, at = COLOURS[number % len(COLOURS)], HEIGHT + 18 * number
        parts += [
            f'<circle cx="{x(time):.1f}" cy="{y(metric):.1f}" r="5" fill="{colour}"/>',
            f'<circle cx="{MARGIN}" cy="{at - 4}" r="5" fill="{colour}"/>',
            f'<text x="{MARGIN + 12}" y="{at}">{escape(setting)}: {metric:.4f}, {time:.2f}</text>',
        ]
    return "".join(parts)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=Path, default=Path("docs/LOWRANK.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/lowrank.svg"))
    asked = parser.parse_args()
    content: dict[str, list[dict[str, Any]]] = json.loads(asked.rows.read_text("utf-8"))
    asked.out.write_text(drawing([Row(**row) for row in content["rows"]]), encoding="utf-8")


if __name__ == "__main__":
    main()
