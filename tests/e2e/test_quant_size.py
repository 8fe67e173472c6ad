"""A size asked for of a committed net: kept to in bytes, and what it costs on unseen samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import onnxslim
from onnxslim import ir
from onnxslim.ir import Array
from onnxslim.runtime.session import open_session

MODELS = Path(__file__).resolve().parents[2] / "models"
NET = MODELS / "fashion_resnet.onnx"


def images(name: str, step: int) -> Array:
    found: Array = np.load(MODELS / name)["input"][::step, None]
    return found


def logits(path: Path, samples: Array) -> Array:
    session = open_session(ir.load(path))
    return np.concatenate([next(iter(session.run({"input": x}).values())) for x in samples])


def test_bytes_and_accuracy(tmp_path: Path) -> None:
    calib, held = images("fashion_calib.npz", 16), images("fashion_eval.npz", 4)
    labels = np.load(MODELS / "fashion_eval.npz")["labels"][::4]
    exact = logits(NET, held)
    noise: list[float] = []
    for size in (0.15, 0.25):
        out = tmp_path / f"{size}.onnx"
        passes = f"quant{{scheme=int8 ranges=minmax smooth=off size={size}}}"
        feeds = [{"input": x} for x in calib]
        onnxslim.compress(NET, out, passes=passes, calib=feeds, allow_slower=True)
        assert ir.weight_bytes(ir.load(out)) <= size * ir.weight_bytes(ir.load(NET))
        found = logits(out, held)
        accuracy = [(y.argmax(axis=1) == labels).mean() for y in (exact, found)]
        assert accuracy[1] >= accuracy[0] - 0.01
        noise.append(float(np.square(found - exact).sum() / np.square(exact).sum()))
    assert noise == sorted(noise, reverse=True)
    assert noise[0] < 10**-2  # 20 dB
