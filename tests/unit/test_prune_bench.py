"""Parts of the pruning benchmarks: photos of a resource file, the picture of curves, verdicts."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from models.metrics import top1
from tests.bench.cases import Case
from tests.bench.prune.accuracy import Row, markdown, verdict
from tests.bench.prune.chart import svg
from tests.bench.prune.curves import RATIOS, pipelines
from tests.bench.prune.settings import SETTINGS, SUBJECTS
from tests.bench.prune.spots import ALONE, DEFAULT, PRUNED, Spot, fastest, findings
from tests.bench.spread import standard_error


def test_webp_files_are_found_in_a_resource_file() -> None:
    pil = pytest.importorskip("PIL.Image")
    photos = pytest.importorskip("models.data_photos")
    written: list[bytes] = []
    for seed in (1, 2):
        image = pil.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 9, 3), np.uint8))
        target = io.BytesIO()
        image.save(target, "WEBP")
        written.append(target.getvalue())
    resource = b"qres" + written[0] + b"RIFF\x04\x00\x00\x00WAVE" + written[1] + b"names"
    assert list(photos.pictures(resource)) == written


def test_the_picture_is_well_formed_and_holds_every_point() -> None:
    panels = {
        "one & two": {"a": [(0.5, 0.9), (0.25, 0.8)], "b": [(0.4, 0.95)]},
        "flat": {"a": [(1.0, 1.0)]},
    }
    text = svg(panels, "latency", {"one & two": "top-1", "flat": "top-1"})
    root = ElementTree.fromstring(text)
    circles = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(circles) == 4 + 2  # and one for each name
    line = next(e for e in root.iter() if e.tag.endswith("polyline"))
    first, second = (float(point.split(",")[0]) for point in line.attrib["points"].split())
    assert first < second


def test_every_curve_has_five_points() -> None:
    for name in RATIOS:
        curves = [curve for curve, _ in pipelines(name)]
        assert {curve: curves.count(curve) for curve in curves} == {"prune,quant": 5, "quant": 5}


def test_a_pipeline_says_how_far_and_how() -> None:
    passes = SUBJECTS[-1].passes(SETTINGS["magnitude"])
    assert passes == (
        "simplify,prune{share=0.3 only=hidden importance=magnitude compensate=false},"
        "prune{share=0.25 only=heads importance=magnitude compensate=false}"
    )


@pytest.mark.parametrize(("drop", "answer"), [(0.006, "met"), (0.008, "not met")])
def test_what_was_asked_for_is_judged(drop: float, answer: str) -> None:
    rows = [Row("fashion_vgg", "FP32", 0.94), Row("fashion_vgg", "ours", 0.94 - drop, drop)]
    assert verdict(SUBJECTS[0], rows).endswith(f"it is {drop:.4f}: {answer}.")
    assert f"| ours | {0.94 - drop:.4f} |" in markdown(rows)


def spot(curve: str, passes: str, metric: float, beside: float) -> Spot:
    return Spot(
        "net", curve, passes, metric, fp32=0.93, sqnr_db=30.0, latency=beside / 2, fp32_ms=2.0,
        beside=beside, apart=metric - 0.93, error=0.001,
    )  # fmt: skip


def test_the_fastest_that_is_as_accurate_is_told() -> None:
    alone = spot(ALONE, DEFAULT, 0.93, 1.0)
    mild, same, fast = (
        spot(PRUNED, name, metric, beside)
        for name, metric, beside in (
            ("mild", 0.931, 0.9),
            ("same", 0.9295, 0.8),
            ("fast", 0.9, 0.5),
        )
    )
    spots = [alone, mild, same, fast, spot(PRUNED, "slow", 0.94, 1.1)]
    assert fastest(spots) is mild
    assert fastest(spots, errors=1.0) is same
    first, second = findings(spots)
    assert "0.9300 at 1.000 ms" in first
    assert "`mild`, 0.9310 at 0.900 ms, 0.450 of FP32's, 1.11 times as fast" in first
    assert "`same`" in second
    assert findings([alone, fast])[0].endswith("faster: none of the points.")
    assert findings([fast]) == []


def test_the_standard_error_of_a_difference_is_that_of_independent_samples() -> None:
    rng = np.random.default_rng(0)
    labels = [np.array(0) for _ in range(2000)]
    one, other = (
        [{"y": np.array([[1.0, 2.0 * float(wrong)]])} for wrong in rng.random(2000) < 0.1]
        for _ in range(2)
    )
    case = Case("", Path(), Path(), "top-1", top1, True, [], labels)
    # each metric has a variance of .1 x .9 / 2000; the spread of 20 parts tells it to a sixth
    assert standard_error(case, one, other) == pytest.approx((2 * 0.09 / 2000) ** 0.5, rel=0.5)
    assert standard_error(case, one, one) == 0
