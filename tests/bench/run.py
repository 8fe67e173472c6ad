"""The benchmark: accuracy on data that no compile saw, size, speed, and what compiling costs.

python -m tests.bench.run [--models NAME,...] [--out docs/RESULTS.md] [--budget SECONDS]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from onnxslim import ir
from onnxslim.runtime.latency import LatencyResult, interleaved_latency
from tests.bench.cases import COMMITTED, OUTSIDE, Case, Outputs, load_case
from tests.bench.compilers import ORT_ALL, ORT_HEAVY, Compiled, Setting, compile_case, ours
from tests.bench.table import Row, as_json, machine, markdown

PEERS = (ORT_ALL, ORT_HEAVY)
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "fashion_vgg": (
        ours("quant"),
        ours("lowrank{ratio=0.5}"),
        ours("lowrank{ratio=0.5},quant"),
        ours("quant,lowrank{ratio=0.5}"),
        *PEERS,
    ),
    "fashion_resnet": (ours("quant"), *PEERS),
    "fashion_vit": (ours("quant"), *PEERS),
    **{name: (ours("quant"), *PEERS) for name in OUTSIDE},
}
INTRO = (
    "# Results",
    "",
    "Written by `make bench`. Accuracy is measured on evaluation samples that no compile sees; all",
    "settings get the same unlabelled calibration samples. *Speed* is FP32 milliseconds over the",
    "setting's, one sample, one thread, medians of rounds in which all files of a model take turns",
    "in one process, with the 99 % interval of the median; *size* is bytes over FP32's bytes;",
    "*seconds* and *peak* are those of the whole compile process, with seed 0.",
)


def measure(name: str, folder: Path, budget_s: float, cache: Path | None) -> Iterator[Row]:
    """All rows of one model, FP32 first."""
    case = load_case(name, cache)
    reference = case.run(case.model)
    fp32 = case.metric(reference, case.labels)
    yield Row(name, case.metric_name, "FP32", metric=fp32)
    compiled: dict[Setting, Compiled] = {}
    for number, setting in enumerate(SETTINGS[name]):
        print(f"{name}: {setting.label}", flush=True)
        compiled[setting] = compile_case(case, setting, _file(folder, name, number))
    good = [s for s, result in compiled.items() if not result.failure]
    files = {s: _file(folder, name, SETTINGS[name].index(s)) for s in good}
    times = interleaved_latency(
        [ir.load(case.model), *(ir.load(files[s]) for s in good)], case.feeds[0], 1, budget_s
    )
    for setting, result in compiled.items():
        if result.failure:
            yield Row(name, case.metric_name, setting.label, failure=result.failure)
        else:
            at = good.index(setting) + 1
            yield _row(case, setting, files[setting], result, times, at, reference, fp32)


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}_{number}.onnx"


def _row(
    case: Case,
    setting: Setting,
    file: Path,
    compiled: Compiled,
    times: LatencyResult,
    at: int,
    reference: Outputs,
    fp32: float,
) -> Row:
    scored = case.score(file, reference)
    low, high = times.interval(at)
    return Row(
        model=case.name,
        metric_name=case.metric_name,
        setting=setting.label,
        metric=scored.metric,
        drop=fp32 - scored.metric,
        agreement=scored.agreement,
        sqnr_db=scored.sqnr_db,
        speed=1 / times.ratio(at),
        speed_low=1 / high,
        speed_high=1 / low,
        latency_ms=times.ms[at],
        size=file.stat().st_size / case.model.stat().st_size,
        seconds=compiled.seconds,
        peak_mb=compiled.peak_mb,
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join((*COMMITTED, *OUTSIDE)))
    parser.add_argument("--out", type=Path, help="a Markdown file; a .json is written beside it")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of timing per model")
    parser.add_argument("--cache", type=Path, help="where the outside models are")
    asked = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.models.split(","):
            rows += measure(name, Path(folder), asked.budget, asked.cache)
    about = machine()
    text = markdown(rows, about, INTRO)
    print(text)
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text, encoding="utf-8")
        asked.out.with_suffix(".json").write_text(as_json(rows, about), encoding="utf-8")


if __name__ == "__main__":
    main()
