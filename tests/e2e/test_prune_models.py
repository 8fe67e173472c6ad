"""Pruning the committed networks without any training: accuracy on images never seen."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, Model
from onnxslim.passes.prune.prune import Prune
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.runtime.samples import FeedList
from onnxslim.runtime.session import open_session
from onnxslim.targets import get_target

MODELS = Path(__file__).resolve().parents[2] / "models"
# of 2,000 images a drop has a standard error of 0.2 points
NOISE = 2 * 0.002


@pytest.fixture(scope="module")
def env() -> Iterator[Environment]:
    images = np.load(MODELS / "fashion_calib.npz")["input"][::4]
    with ThreadPoolExecutor(2) as executor:
        calib = FeedList([{"input": image[None]} for image in images])
        yield Environment(get_target("ort-cpu"), executor, calib=calib, threads=2)


def pruned(env: Environment, name: str, options: Prune) -> tuple[Model, PassResult]:
    model = ir.load(MODELS / f"fashion_{name}.onnx")
    result = options.run(model, Context(env, AnalysisManager(model, env), ir.snapshot(model)))
    ir.verify(model)
    return model, result


def accuracy(model: Model) -> float:
    data = np.load(MODELS / "fashion_eval.npz")
    session = open_session(model, threads=2)
    batches = [session.run({"input": x}) for x in np.array_split(data["input"], 8)]
    answers: list[Array] = [next(iter(found.values())).argmax(axis=1) for found in batches]
    return float((np.concatenate(answers) == data["labels"]).mean())


@pytest.mark.parametrize(
    ("name", "options", "macs", "drop"),
    [
        pytest.param("vit", Prune(share=0.5, only=("hidden",)), 0.8, 0.015, id="vit"),
        pytest.param("vgg", Prune(ratio=0.5), 0.5, 0.007, id="vgg", marks=pytest.mark.slow),
        pytest.param("resnet", Prune(ratio=0.6), 0.6, 0.015, id="resnet", marks=pytest.mark.slow),
    ],
)
def test_pruned_without_training_a_network_keeps_its_accuracy(
    env: Environment, name: str, options: Prune, macs: float, drop: float
) -> None:
    original = accuracy(ir.load(MODELS / f"fashion_{name}.onnx"))
    model, result = pruned(env, name, options)
    assert float(result.stats["macs_ratio"]) <= macs
    assert original - accuracy(model) <= drop + NOISE


@pytest.mark.slow
def test_magnitude_without_repair_loses_more(env: Environment) -> None:
    ours, _ = pruned(env, "vit", Prune(share=0.7, only=("hidden",)))
    plain, _ = pruned(
        env, "vit", Prune(share=0.7, only=("hidden",), importance="magnitude", compensate=False)
    )
    assert accuracy(ours) > accuracy(plain) + NOISE
