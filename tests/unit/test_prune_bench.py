"""Parts of the pruning benchmarks: photos of a resource file, the picture of curves, verdicts."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from tests.bench.prune.accuracy import Row, markdown, verdict
from tests.bench.prune.chart import svg
from tests.bench.prune.curves import RATIOS, pipelines
from tests.bench.prune.settings import SETTINGS, SUBJECTS


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
