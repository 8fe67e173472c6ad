"""Accuracy against latency of `prune,quant` and of `quant` alone, five points each, as a picture.

python -m tests.bench.prune.curves [--models a,b] [--anew] [--out docs/PRUNE_CURVES.svg]

A .json lies beside the picture, and a .md that says which `prune,quant` is at least as accurate as
`quant` alone and faster. All are written after each point; a later run measures those that are not
there yet, or with `--anew` all of the models named.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.metrics import sqnr
from tests.bench.cases import Case, Outputs, load_case
from tests.bench.compilers import Setting, compile_case
from tests.bench.prune.chart import Marked, svg
from tests.bench.prune.spots import ALONE, DEFAULT, PRUNED, Spot, markdown
from tests.bench.quant.measure import race
from tests.bench.spread import standard_error
from tests.bench.table import machine

TITLES = {
    "fashion_vgg": "VGG, Fashion-MNIST",
    "fashion_resnet": "ResNet-8, Fashion-MNIST",
    "minilm_l6": "MiniLM-L6",
}
RATIOS: Mapping[str, tuple[float, ...]] = {
    "fashion_vgg": (0.95, 0.85, 0.7, 0.5, 0.35),
    "fashion_resnet": (0.95, 0.9, 0.8, 0.7, 0.6),
    "minilm_l6": (0.95, 0.9, 0.8, 0.7, 0.6),
}
"""Of the MACs, before quantizing. `quant` alone gets its own trade: the share of weights that may
stay float."""
FLOAT_SHARES = (0.05, 0.2, 0.4, 0.7)
_MORE = ("--quiet", "--no-check", "--allow-slower", "--threads", "2")


@dataclass(frozen=True)
class Reference:
    """What points are held against: FP32's outputs, and the file and outputs of `quant` alone."""

    fp32: Outputs
    file: Path
    alone: Outputs


def pipelines(name: str) -> list[tuple[str, str]]:
    """Curve and passes of every point, that of `quant` with its defaults first."""
    pruned = [(PRUNED, f"simplify,prune{{ratio={ratio}}},quant") for ratio in RATIOS[name]]
    shares = [(ALONE, f"simplify,quant{{goal=60 float_share={share}}}") for share in FLOAT_SHARES]
    return [(ALONE, DEFAULT), *pruned, *shares]


def compiled(case: Case, passes: str, folder: Path) -> tuple[Path, str]:
    """The file that the passes make, if it is not there yet, and why there is none."""
    out = folder / f"{case.name} {passes}.onnx"
    if out.exists():
        return out, ""
    arguments = ("--passes", passes, "--cache", str(folder / "cache"), *_MORE)
    return out, compile_case(case, Setting(passes, "onnxslim", arguments), out).failure


def measure(case: Case, point: tuple[str, str], file: Path, held: Reference, budget: float) -> Spot:
    """Score one file and time it beside FP32 and beside `quant` alone."""
    times = race(case, [held.file, file], 1, budget)
    (alone, *_), (own, low, high) = times["speeds"]
    outputs = held.alone if file == held.file else case.run(file)
    metric = case.metric(outputs, case.labels)
    return Spot(
        case.name,
        *point,
        metric=metric,
        fp32=case.metric(held.fp32, case.labels),
        sqnr_db=sqnr(outputs, held.fp32),
        latency=1 / own,
        fp32_ms=times["ms"],
        interval=(1 / high, 1 / low),
        beside=alone / own,
        apart=metric - case.metric(held.alone, case.labels),
        error=standard_error(case, outputs, held.alone),
    )


def picture(spots: list[Spot]) -> str:
    """A panel for each network; bars are the standard error of the difference from `quant`."""
    panels: dict[str, dict[str, list[Marked]]] = {}
    names: dict[str, str] = {}
    for spot in spots:
        title = TITLES[spot.model]
        names[title] = f"metric (FP32 {spot.fp32:.4f})"
        panel = panels.setdefault(title, {})
        panel.setdefault(spot.curve, []).append((spot.latency, spot.metric, spot.error))
    return svg(panels, "latency over that of FP32", names)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(TITLES))
    parser.add_argument("--out", type=Path, default=Path("docs/PRUNE_CURVES.svg"))
    parser.add_argument("--budget", type=float, default=6.0, help="seconds of timing per point")
    parser.add_argument("--files", type=Path, help="a folder that compiled models stay in")
    parser.add_argument("--anew", action="store_true", help="measure again what is there")
    asked = parser.parse_args()
    spots = _earlier(asked.out.with_suffix(".json"))
    for name in asked.models.split(","):
        wanted = [passes for _, passes in pipelines(name)]
        spots = [s for s in spots if s.model != name or (s.passes in wanted and not asked.anew)]
        known = {spot.passes for spot in spots if spot.model == name}
        missing = [pair for pair in pipelines(name) if pair[1] not in known]
        if missing:
            _fill(load_case(name), missing, spots, asked)
    _write(asked.out, spots)


def _fill(
    case: Case, missing: list[tuple[str, str]], spots: list[Spot], asked: argparse.Namespace
) -> None:
    """Measure these points of one network; what fails is printed."""
    with nullcontext(asked.files) if asked.files else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, failure = compiled(case, DEFAULT, folder)
        if failure:
            raise SystemExit(f"{case.name}, {DEFAULT}: {failure}")
        held = Reference(case.run(case.model), first, case.run(first))
        for curve, passes in missing:
            file, failure = (first, "") if passes == DEFAULT else compiled(case, passes, folder)
            if failure:
                print(f"{case.name}, {passes}: {failure}", flush=True)
                continue
            spots.append(measure(case, (curve, passes), file, held, asked.budget))
            print(spots[-1], flush=True)
            _write(asked.out, spots)


def _earlier(data: Path) -> list[Spot]:
    if not data.exists():
        return []
    stored: list[dict[str, Any]] = json.loads(data.read_text(encoding="utf-8"))["points"]
    for point in stored:
        point["interval"] = tuple(point["interval"])
    return [Spot(**point) for point in stored]


def _write(out: Path, spots: list[Spot]) -> None:
    """The picture, what it shows and its data, in the order of the curves."""
    order = [(name, passes) for name in TITLES for _, passes in pipelines(name)]
    spots.sort(key=lambda spot: order.index((spot.model, spot.passes)))
    out.write_text(picture(spots), encoding="utf-8")
    about = machine()
    out.with_suffix(".md").write_text(markdown(spots, TITLES, about), encoding="utf-8")
    content = {"machine": about, "points": [asdict(spot) for spot in spots]}
    out.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
