"""The rows of `run` as Markdown and JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench.lowrank.settings import SETTINGS
from tests.bench.simplify.report import commit
from tests.bench.table import machine

INTRO = """# Low rank

Written by `python -m tests.bench.lowrank.run`. *Metric* is that of the evaluation samples, which no
compile sees (Fashion-MNIST: 10,000 images); *agreement* is with FP32's answers; *times as fast* is
FP32's time over this one, one sample on one thread, the median of runs in turns; *MACs* and *size*
(of the weights) are shares of FP32's; *seconds* and *peak* are those of the whole command, check
included, on two threads of a machine that others use too. *plain SVD* and *diagonal* are the
layers and ranks of the same choice made once more, cut by the norm of the weights and by that of
weights whose columns are scaled like ASVD's. In the tables of layers *pivoted* is a cut whose first
factor gives some of the layer's own outputs.
"""
HEAD = ("setting", "metric", "agreement", "SQNR dB", "times as fast", "MACs", "size", "seconds",
        "peak MB")  # fmt: skip
LAYERS = """## Layers

What the first pipeline of each model did, layer by layer. *ms* are those of the layer alone and of
what took its place, measured in turns, and in brackets what was predicted when the choice was made;
*held in* is the signal to noise of the layer's output on the samples that it was fitted to, *held
out* that on a fifth of the calibration samples of factors that were fitted to the rest.
"""


@dataclass(frozen=True)
class Row:
    """One model compiled in one way; shares and ratios are against FP32."""

    model: str
    setting: str
    metric: float | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    perplexity: float | None = None
    wordsim: float | None = None
    lee: float | None = None
    macs: float | None = None
    size: float | None = None
    ms: float | None = None
    speed: float | None = None
    seconds: float | None = None
    peak_mb: float | None = None
    failure: str = ""

    def timed(self, ms: float, speed: float) -> Row:
        """With its time."""
        return replace(self, ms=ms, speed=speed)

    def cells(self) -> tuple[str, ...]:
        """As text."""
        if self.failure:
            return (self.setting, f"failed: {self.failure}", *[""] * (len(HEAD) - 2))
        metric = _number(self.metric, 4)
        if self.perplexity is not None:
            metric = f"perplexity {self.perplexity:.2f}"
        if self.wordsim is not None and self.lee is not None:
            metric += f" (WordSim {self.wordsim:.3f}, Lee {self.lee:.3f})"
        return (
            self.setting,
            metric,
            _number(self.agreement, 4),
            _number(self.sqnr_db, 1),
            _number(self.speed, 2),
            _number(self.macs, 3),
            _number(self.size, 3),
            _number(self.seconds, 0),
            _number(self.peak_mb, 0),
        )


@dataclass(frozen=True)
class LayerRow:
    """What was done to one layer."""

    model: str
    layer: str
    action: str
    held_in_db: float | None


def layers_of(model: str, report: dict[str, Any]) -> list[LayerRow]:
    """The rows of the `lowrank` pass in a report."""
    passes: list[dict[str, Any]] = report["passes"]
    found = [entry for entry in passes if str(entry["spec"]).startswith("lowrank")]
    rows: list[dict[str, Any]] = found[0]["layers"] if found else []
    return [LayerRow(model, row["node"], row["action"], row["predicted_db"]) for row in rows]


def merged(rows: Sequence[Row], more: Sequence[Row]) -> list[Row]:
    """Rows in the order of the settings, the new ones in the place of those they measure anew."""
    found = {(row.model, row.setting): row for row in [*rows, *more]}
    return sorted(found.values(), key=_place)


def _place(row: Row) -> tuple[float, ...]:
    """FP32 first, a pipeline, then what stands beside it."""
    order = [setting.passes for setting in SETTINGS[row.model]]
    alone = row.setting.partition(", same ranks as ")[2] or row.setting
    at = order.index(alone) if alone in order else -1.0
    return list(SETTINGS).index(row.model), at, alone != row.setting


def layers_merged(layers: Sequence[LayerRow], more: Sequence[LayerRow]) -> list[LayerRow]:
    """The new ones in the place of all of the same model."""
    anew = {row.model for row in more}
    return [*(row for row in layers if row.model not in anew), *more]


def write(rows: Sequence[Row], layers: Sequence[LayerRow], out: Path) -> None:
    """Both files."""
    about = {**machine(), "load": f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} CPUs",
             "commit": commit()}  # fmt: skip
    lines = [INTRO]
    names = [name for name in SETTINGS if any(row.model == name for row in rows)]
    for name in names:
        table = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows if row.model == name)]
        lines += [f"## {name}\n", *(f"| {' | '.join(cells)} |" for cells in table), ""]
    lines.append(LAYERS)
    for name in names:
        some = [row for row in layers if row.model == name]
        lines += [f"### {name}, {SETTINGS[name][0].passes}\n", "| layer | what | held in |",
                  "|---|---|---|"]  # fmt: skip
        lines += [f"| {r.layer} | {r.action} | {_number(r.held_in_db, 1)} dB |" for r in some]
        lines.append("")
    lines += [", ".join(f"{k} {v}" for k, v in about.items()), ""]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines), encoding="utf-8")
    content = {
        "machine": about,
        "rows": [asdict(row) for row in rows],
        "layers": [asdict(row) for row in layers],
    }
    out.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
