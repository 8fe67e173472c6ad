"""Accuracy against latency of `prune,quant` and of `quant` alone, five points each, as a picture.

python -m tests.bench.prune.curves [--models a,b] [--out docs/PRUNE_CURVES.svg]

A .json lies beside the picture; what an earlier run measured of other models stays.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.cases import Case, load_case
from tests.bench.compilers import Setting, compile_case
from tests.bench.prune.chart import svg
from tests.bench.quant.measure import race
from tests.bench.table import machine

PRUNED, ALONE = "prune,quant", "quant"
TITLES = {
    "fashion_vgg": "VGG, Fashion-MNIST",
    "fashion_resnet": "ResNet-8, Fashion-MNIST",
    "minilm_l6": "MiniLM-L6",
}
RATIOS: Mapping[str, tuple[float, ...]] = {
    "fashion_vgg": (0.85, 0.7, 0.5, 0.35, 0.25),
    "fashion_resnet": (0.9, 0.8, 0.7, 0.6, 0.5),
    "minilm_l6": (0.96, 0.92, 0.88, 0.84, 0.8),
}
"""Of the MACs, before quantizing. `quant` alone gets its own trade: the share of weights that may
stay float."""
FLOAT_SHARES = (0.0, 0.05, 0.2, 0.4, 0.7)
_MORE = ("--quiet", "--no-check", "--allow-slower", "--threads", "2")


@dataclass(frozen=True)
class Spot:
    """One point of a curve; `latency` is after over before on one thread."""

    model: str
    curve: str
    passes: str
    metric: float
    fp32: float
    sqnr_db: float
    latency: float


def pipelines(name: str) -> list[tuple[str, str]]:
    """Curve and passes of every point."""
    pruned = [(PRUNED, f"simplify,prune{{ratio={ratio}}},quant") for ratio in RATIOS[name]]
    alone = [(ALONE, f"simplify,quant{{goal=60 float_share={s}}}") for s in FLOAT_SHARES]
    return pruned + alone


def measure(case: Case, folder: Path, budget_s: float) -> list[Spot]:
    """Compile every point, score it, and time all of them in turns."""
    made: list[tuple[str, str, Path]] = []
    for number, (curve, passes) in enumerate(pipelines(case.name)):
        out = folder / f"{number}.onnx"
        arguments = ("--passes", passes, "--cache", str(folder / "cache"), *_MORE)
        took = compile_case(case, Setting(passes, "onnxslim", arguments), out)
        if took.failure:
            raise SystemExit(f"{case.name}, {passes}: {took.failure}")
        made.append((curve, passes, out))
    speeds = race(case, [path for _, _, path in made], 1, budget_s)["speeds"]
    spots: list[Spot] = []
    reference = case.run(case.model)
    fp32 = case.metric(reference, case.labels)
    for (curve, passes, path), speed in zip(made, speeds, strict=True):
        found = case.score(path, reference)
        spots.append(
            Spot(
                case.name, curve, passes, found.metric, fp32, found.sqnr_db, 1 / speed[0],
            )
        )  # fmt: skip
    return spots


def picture(spots: list[Spot]) -> str:
    """A panel for each network."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    names: dict[str, str] = {}
    for spot in spots:
        title = TITLES[spot.model]
        names[title] = f"metric (FP32 {spot.fp32:.4f})"
        panel = panels.setdefault(title, {})
        panel.setdefault(spot.curve, []).append((spot.latency, spot.metric))
    return svg(panels, "latency over that of FP32", names)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(TITLES))
    parser.add_argument("--out", type=Path, default=Path("docs/PRUNE_CURVES.svg"))
    parser.add_argument("--budget", type=float, default=10.0, help="seconds of timing per model")
    asked = parser.parse_args()
    names, data = asked.models.split(","), asked.out.with_suffix(".json")
    spots: list[Spot] = []
    if data.exists():
        stored: list[dict[str, Any]] = json.loads(data.read_text(encoding="utf-8"))["points"]
        spots = [Spot(**point) for point in stored if point["model"] not in names]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(load_case(name), Path(folder), asked.budget)
        for spot in found:
            print(f"{name} {spot.passes}: {spot.metric:.4f} at {spot.latency:.3f}", flush=True)
        spots += found
        order = list(TITLES)
        spots.sort(key=lambda spot: order.index(spot.model))
        asked.out.write_text(picture(spots), encoding="utf-8")
        content = {"machine": machine(), "points": [asdict(spot) for spot in spots]}
        data.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
