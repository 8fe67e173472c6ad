"""Accuracy against latency of `prune,quant` and of `quant` alone, five points each, as a picture.

python -m tests.bench.prune.curves [--models a,b] [--anew] [--out docs/PRUNE_CURVES.svg]

A .json lies beside the picture. Both are written after each point; a later run measures those
that are not there yet, or with `--anew` all of the models named.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.cases import Case, Outputs, load_case
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


def measure(
    case: Case, passes: str, cache: Path, reference: Outputs, budget_s: float
) -> Spot | str:
    """Compile one point, score it and time it beside FP32; or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "point.onnx")
        arguments = ("--passes", passes, "--cache", str(cache), *_MORE)
        took = compile_case(case, Setting(passes, "onnxslim", arguments), out)
        if took.failure:
            return f"{case.name}, {passes}: {took.failure}"
        speed = race(case, [out], 1, budget_s)["speeds"][0]
        found = case.score(out, reference)
    fp32 = case.metric(reference, case.labels)
    curve = next(curve for curve, own in pipelines(case.name) if own == passes)
    return Spot(case.name, curve, passes, found.metric, fp32, found.sqnr_db, 1 / speed[0])


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
    parser.add_argument("--budget", type=float, default=4.0, help="seconds of timing per point")
    parser.add_argument("--anew", action="store_true", help="measure again what is there")
    asked = parser.parse_args()
    data = asked.out.with_suffix(".json")
    spots = _earlier(data)
    for name in asked.models.split(","):
        case, asked_for = load_case(name), [passes for _, passes in pipelines(name)]
        spots = [s for s in spots if s.model != name or (s.passes in asked_for and not asked.anew)]
        known = {spot.passes for spot in spots if spot.model == name}
        reference = [] if known == set(asked_for) else case.run(case.model)
        with tempfile.TemporaryDirectory() as cache:
            for passes in asked_for:
                if passes in known:
                    continue
                found = measure(case, passes, Path(cache), reference, asked.budget)
                if isinstance(found, str):
                    print(found, flush=True)
                    continue
                print(f"{name} {passes}: {found.metric:.4f} at {found.latency:.3f}", flush=True)
                spots.append(found)
                _write(asked.out, spots)


def _earlier(data: Path) -> list[Spot]:
    if not data.exists():
        return []
    stored: list[dict[str, Any]] = json.loads(data.read_text(encoding="utf-8"))["points"]
    return [Spot(**point) for point in stored]


def _write(out: Path, spots: list[Spot]) -> None:
    """The picture and its data, in the order of the curves."""
    order = [(name, passes) for name in TITLES for _, passes in pipelines(name)]
    spots.sort(key=lambda spot: order.index((spot.model, spot.passes)))
    out.write_text(picture(spots), encoding="utf-8")
    content = {"machine": machine(), "points": [asdict(spot) for spot in spots]}
    out.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
