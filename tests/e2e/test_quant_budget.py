"""A limit of the check on a committed net: met by few layers in float, with little left over."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onnxslim import driver, ir
from onnxslim.config import Request
from onnxslim.passes.check.check import Check
from onnxslim.passes.quant.quant import Quant
from onnxslim.report.record import Report

MODELS = Path(__file__).resolve().parents[2] / "models"
QUICK = Quant(scheme="int8", weight_bits=4, ranges="minmax", rounding="nearest", smooth="off")
MORE_DB = 5.0


def compiled(check: Check) -> Report:
    """ResNet-8 in 4-bit weights, rounded to the nearest, so that some layers are far too noisy."""
    images = np.load(MODELS / "fashion_calib.npz")["input"][::16, None]
    held = np.load(MODELS / "fashion_eval.npz")["input"][::20, None]
    request = Request(
        passes=(QUICK, check),
        calib=[{"input": image} for image in images],
        eval=[{"input": image} for image in held],
        allow_slower=True,
    )
    return driver.compile_model(ir.load(MODELS / "fashion_resnet.onnx"), request)[1]


def reached(report: Report) -> float:
    assert report.check is not None
    return min(report.check.sqnr_db.values())


def test_the_limit_is_met_with_little_left_over() -> None:
    loose = compiled(Check())
    limit = reached(loose) + MORE_DB
    tight = compiled(Check(min_sqnr=limit))
    assert limit <= reached(tight) < limit + 3  # the steps back are of 3 dB
    layers = [int(report.passes[0].stats["int8_layers"]) for report in (loose, tight)]
    assert 0 < layers[1] < layers[0]
    assert any("quant was sent back" in note for note in tight.passes[0].notes)
    kept = [d for d in tight.passes[0].declined if "the outputs lose too much" in d.reason]
    assert len(kept) == layers[0] - layers[1]
