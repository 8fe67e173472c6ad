"""Accuracy against latency of `prune,quant` with and without `distill` between them, as a picture.

python -m tests.bench.distill.picture [--models a,b] [--shares 0.5,0.3] [--minutes M | --steps N]

Nets are scored on the 10,000 test images; the times are those of one image on one thread, over
FP32's. Files stay in out/distill, where `tests.bench.distill.run` leaves the students that it
taught, and points in the .json beside the picture, so that it can be made point by point. Needs
torch.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import onnxslim
from onnxslim import ir
from onnxslim.ir import Model
from onnxslim.passes.distill.distill import Distill
from onnxslim.runtime.samples import Samples
from tests.bench.cases import Case, load_case
from tests.bench.distill.run import CACHE, taught_file, teach
from tests.bench.distill.students import (
    COMPRESSED_WITH,
    THREADS,
    Student,
    lessons,
    made,
    spaced,
)
from tests.bench.prune.curves import picture
from tests.bench.prune.spots import Spot
from tests.bench.quant.measure import race
from tests.bench.table import machine

WITHOUT, WITH = "prune,quant", "prune,distill,quant"
SHARES: Mapping[str, tuple[float, ...]] = {
    "fashion_vgg": (1.0, 0.25),
    "fashion_resnet": (1.0, 0.4),
}
"""Of the MACs, that pruning leaves; at 1 there is nothing to prune or to teach."""


def files(case: Case, share: float, minutes: float, steps: int) -> Mapping[str, Path]:
    """Curve -> the quantized file, made unless it lies there."""
    teacher = ir.load(case.model)
    samples = lessons(case, teacher)
    passes = "simplify" if share == 1 else f"simplify,prune{{ratio={share}}}"
    student = Student(case.name, f"{share:.0%} of the MACs", passes)
    pruned = made(teacher, student, samples, CACHE)
    taught = pruned if share == 1 else taught_file(pruned)
    if not taught.exists():
        model = ir.load(pruned)
        teach(teacher, model, samples, Distill(level="model", minutes=minutes, steps=steps))
        ir.save(model, taught)
    found: dict[str, Path] = {}
    for curve, source in ((WITHOUT, pruned), (WITH, taught)):
        found[curve] = source.with_suffix(".quant.onnx")
        if not found[curve].exists():
            ir.save(quantized(ir.load(source), samples), found[curve])
    return found


def quantized(model: Model, samples: Samples) -> Model:
    """The model after `quant`."""
    return onnxslim.compress(
        model, passes="quant", calib=list(spaced(samples, COMPRESSED_WITH)), check=False,
        allow_slower=True, threads=THREADS,
    ).model  # fmt: skip


def points(case: Case, shares: Sequence[float], minutes: float, steps: int) -> list[Spot]:
    """Score every file of a net and time all of them in turns."""
    paths = {
        (curve, share): path
        for share in shares
        for curve, path in files(case, share, minutes, steps).items()
    }
    reference = case.run(case.model)
    fp32 = case.metric(reference, case.labels)
    speeds = race(case, list(paths.values()), 1, 10.0)["speeds"]
    found: list[Spot] = []
    for ((curve, share), path), speed in zip(paths.items(), speeds, strict=True):
        scored = case.score(path, reference)
        rest = f"prune{{ratio={share}}},{curve.partition(',')[2]}"
        passes = f"simplify,{'quant' if share == 1 else rest}"
        found.append(
            Spot(case.name, curve, passes, scored.metric, fp32, scored.sqnr_db, 1 / speed[0])
        )
    return found


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default=",".join(SHARES))
    parser.add_argument("--shares", help="of the MACs, instead of those in SHARES")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=0, help="instead of minutes")
    parser.add_argument("--out", type=Path, default=Path("docs/DISTILL_CURVES.svg"))
    asked = parser.parse_args()
    data = asked.out.with_suffix(".json")
    spots: dict[tuple[str, str, str], Spot] = {}
    if data.exists():
        stored = [Spot(**p) for p in json.loads(data.read_text(encoding="utf-8"))["points"]]
        spots = {(spot.model, spot.curve, spot.passes): spot for spot in stored}
    for name in asked.models.split(","):
        shares = [float(s) for s in asked.shares.split(",")] if asked.shares else SHARES[name]
        for spot in points(load_case(name), shares, asked.minutes, asked.steps):
            spots[spot.model, spot.curve, spot.passes] = spot
            print(f"{name} {spot.passes}: {spot.metric:.4f} at {spot.latency:.3f}", flush=True)
        order = list(SHARES)
        ordered = sorted(spots.values(), key=lambda spot: order.index(spot.model))
        asked.out.write_text(picture(ordered), encoding="utf-8")
        content = {"machine": machine(), "points": [asdict(spot) for spot in ordered]}
        data.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
