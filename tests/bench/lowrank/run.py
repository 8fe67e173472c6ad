"""Low-rank factorization measured on the committed and the outside models.

python -m tests.bench.lowrank.run [NAME...] [--settings 'PATTERN'...] [--rows pipelines|baselines]
    [--out docs/LOWRANK.md]

Rows that are not measured stay as the JSON beside the document has them, and each is written as
soon as it is known. Every pipeline is compiled by the command line in a process of its own, scored
on samples that no compile sees, and timed in turns with FP32 on one thread. The baselines take the
ranks that ours chooses.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from models.metrics import agreement, lee, perplexity, sqnr, wordsim353
from models.samples import read_samples
from onnxslim import ir, registry
from onnxslim.passes.lowrank.lowrank import Lowrank
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment
from onnxslim.runtime.latency import interleaved_latency
from onnxslim.runtime.samples import FeedList
from onnxslim.targets import get_target
from tests.bench.cases import Case, Outputs, load_case
from tests.bench.compilers import watch
from tests.bench.lowrank.baselines import factorized
from tests.bench.lowrank.report import LayerRow, Row, layers_merged, layers_of, merged, write
from tests.bench.lowrank.settings import SETTINGS, Setting

_BUDGET_S = 6.0  # of timing per row

Made = tuple[list[Row], list[LayerRow]]


def measure(name: str, folder: Path, patterns: Sequence[str], rows: str) -> Iterator[Made]:
    """FP32, then what each setting that fits one of the patterns gives, as soon as it is known:
    its rows, and what it did layer by layer if it is the model's first. `rows` are those of the
    pipelines, of the baselines beside them, or both."""
    case = load_case(name)
    reference = case.run(case.model)
    yield [_scored(Row(name, "FP32", speed=1.0), case, reference, reference)], []
    for number, setting in enumerate(SETTINGS[name]):
        if not any(fnmatchcase(setting.passes, pattern) for pattern in patterns):
            continue
        if rows != "baselines":
            out = folder / f"{name}_{number}.onnx"
            row, layers = _compiled(case, setting, out, reference)
            if not row.failure:
                files = [ir.load(case.model), ir.load(out)]
                times = interleaved_latency(files, case.feeds[0], 1, _BUDGET_S)
                row = row.timed(times.ms[1], 1 / times.ratio())
            yield [row], layers if number == 0 else []
        if setting.beside and rows != "pipelines":
            for row in _beside(case, setting, folder, reference):
                yield [row], []


def _compiled(
    case: Case, setting: Setting, out: Path, reference: Outputs
) -> tuple[Row, list[LayerRow]]:
    report = out.with_suffix(".report")
    passes = f"simplify,{setting.passes}"
    command = [sys.executable, "-m", "onnxslim", str(case.model), str(out), "--calib",
               str(case.calib), "--passes", passes, "--quiet", "--threads", "2",
               "--allow-slower", "--report", str(report)]  # fmt: skip
    took = watch(command, out)
    row = Row(case.name, setting.passes, seconds=took.seconds, peak_mb=took.peak_mb)
    if took.failure:
        return replace(row, failure=took.failure[:160]), []
    said: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    macs: dict[str, Any] = said["macs"]
    size: dict[str, Any] = said["size"]
    row = replace(
        row,
        macs=macs["after"] / macs["before"] if macs["before"] else None,
        size=size["after"] / size["before"],
    )
    return _scored(row, case, case.run(out), reference), layers_of(case.name, said)


def _beside(case: Case, setting: Setting, folder: Path, reference: Outputs) -> Iterator[Row]:
    """The baselines of a pipeline that is nothing but `lowrank`."""
    (options,) = registry.build(setting.passes)
    assert isinstance(options, Lowrank)
    with ThreadPoolExecutor(2) as executor:
        calib = FeedList([feed for feed, _ in read_samples(case.calib)])
        env = Environment(get_target("ort-cpu"), executor, calib=calib, threads=2)
        model = ir.load(case.model)
        ctx = Context(env, AnalysisManager(model, env), ir.snapshot(model))
        for label, made in factorized(model, options, ctx).items():
            path = folder / "baseline.onnx"
            ir.save(made, path)
            row = Row(case.name, f"{label}, same ranks as {setting.passes}")
            yield _scored(row, case, case.run(path), reference)


def _scored(row: Row, case: Case, outputs: Outputs, reference: Outputs) -> Row:
    """With the metrics of these outputs."""
    row = replace(row, metric=case.metric(outputs, case.labels))
    if outputs is not reference:
        same = agreement(outputs, reference) if case.classifier else None
        row = replace(row, sqnr_db=sqnr(outputs, reference), agreement=same)
    if case.metric_name == "next_token_log_probability":
        return replace(row, perplexity=float(perplexity(outputs, case.labels)))
    if case.metric_name == "mean_correlation":
        found = wordsim353(outputs, case.labels), lee(outputs, case.labels)
        return replace(row, wordsim=found[0], lee=found[1])
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=tuple(SETTINGS))
    parser.add_argument("--settings", nargs="*", default=("*",), help="of these pipelines alone")
    parser.add_argument("--rows", choices=("all", "pipelines", "baselines"), default="all")
    parser.add_argument("--out", type=Path, default=Path("docs/LOWRANK.md"))
    asked = parser.parse_args(arguments)
    known = asked.out.with_suffix(".json")
    kept: dict[str, Any] = json.loads(known.read_text("utf-8")) if known.exists() else {}
    old: list[dict[str, Any]] = kept.get("rows", [])
    old_layers: list[dict[str, Any]] = kept.get("layers", [])
    rows = [Row(**r) for r in old if r["model"] in SETTINGS]
    layers = [LayerRow(**r) for r in old_layers if r["model"] in SETTINGS]
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.names:
            for more, of_layers in measure(name, Path(folder), asked.settings, asked.rows):
                print(more, flush=True)
                rows, layers = merged(rows, more), layers_merged(layers, of_layers)
                write(rows, layers, asked.out)


if __name__ == "__main__":
    main()
