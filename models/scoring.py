"""Runs an ONNX file over evaluation samples and scores what comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from models.catalog import ModelError, Recipe, resolve
from models.metrics import Labels, Outputs
from models.samples import Array, Feeds, read_samples

Metric = Callable[[Outputs, Labels], float]
RUNTIME_ERRORS = (
    ValueError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


@dataclass(frozen=True)
class Scores:
    """What a model scored: the manifest's metric first, then the others that it names."""

    values: dict[str, float]
    samples: int
    seconds: float

    @property
    def score(self) -> float:
        return next(iter(self.values.values()))


def session(model: Path, threads: int) -> ort.InferenceSession:
    """An ONNX Runtime CPU session with `threads` threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def run(model: Path, feeds: Iterable[Feeds], threads: int = 1) -> list[dict[str, Array]]:
    """The outputs of every sample, by name; raises ModelError where the model refuses them."""
    try:
        runner = session(model, threads)
        names = [output.name for output in runner.get_outputs()]
        return [dict(zip(names, runner.run(names, feed), strict=True)) for feed in feeds]
    except RUNTIME_ERRORS as error:
        raise ModelError(f"{model} does not run on these samples: {error}") from error


def labelled(path: Path) -> tuple[list[Feeds], list[Array]]:
    """Inputs and labels of all samples; raises ModelError where a label is missing."""
    feeds: list[Feeds] = []
    labels: list[Array] = []
    for inputs, label in read_samples(path):
        if label is None:
            raise ModelError(f"{path} has samples without `labels`; it cannot be scored")
        feeds.append(inputs)
        labels.append(np.asarray(label))
    return feeds, labels


def metrics(recipe: Recipe) -> dict[str, Metric]:
    """The recipe's metrics by name, the main one first."""
    module = recipe.metric.partition(":")[0]
    found: dict[str, Any] = {recipe.metric_name: resolve(recipe.metric)}
    return found | {name: resolve(f"{module}:{name}") for name in recipe.also}


def score(recipe: Recipe, model: Path, evaluation: Path, threads: int = 1) -> Scores:
    """Scores `model` with the recipe's metrics; seconds are those of loading and running it."""
    feeds, labels = labelled(evaluation)
    start = time.perf_counter()
    outputs = run(model, feeds, threads)
    seconds = time.perf_counter() - start
    values = {name: metric(outputs, labels) for name, metric in metrics(recipe).items()}
    return Scores(values, len(labels), seconds)
