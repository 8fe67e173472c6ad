"""The models that are measured, and the samples on which their accuracy is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models import fashion_data
from models.metrics import agreement, next_token_log_probability, sqnr, top1
from models.scoring import labelled, session
from models.zoo import load_entry

Array = npt.NDArray[Any]
Outputs = list[dict[str, Array]]
MODELS = Path(__file__).resolve().parents[2] / "models"
OUTSIDE = ("efficientnet_lite0", "ppocrv4_rec", "ppocrv4_det", "minilm_l6")
DECODER = "decoder"
COMMITTED = ("fashion_vgg", "fashion_resnet", "fashion_vit")


@dataclass(frozen=True)
class Scored:
    """What one model answered to the evaluation samples, compared with FP32."""

    metric: float
    agreement: float | None  # share of samples whose top-1 is that of FP32, for classifiers
    sqnr_db: float  # of all outputs against FP32's


@dataclass(frozen=True)
class Case:
    """A model with its calibration file and its evaluation samples, which never overlap."""

    name: str
    model: Path
    calib: Path
    metric_name: str
    metric: Callable[[Outputs, list[Array]], float]
    classifier: bool
    feeds: Sequence[dict[str, Array]]
    labels: list[Array]
    batch: int = 1  # how many samples are scored in one run

    def run(self, model: Path) -> Outputs:
        """The outputs of a file on every evaluation sample, one dict per sample."""
        runner: Any = session(model, threads=2)
        names = [str(output.name) for output in runner.get_outputs()]
        return self.answers(lambda feed: dict(zip(names, runner.run(names, feed), strict=True)))

    def answers(self, run: Callable[[dict[str, Array]], dict[str, Array]]) -> Outputs:
        """What a function of feeds gives for every evaluation sample, one dict per sample."""
        outputs: Outputs = []
        for feed in _batches(self.feeds, self.batch):
            values = run(feed)
            outputs += [values] if self.batch == 1 else _rows(values)
        return outputs

    def score(self, model: Path, reference: Outputs) -> Scored:
        """How a file does on the evaluation samples; `reference` are the outputs of FP32."""
        return self.scored(self.run(model), reference)

    def scored(self, outputs: Outputs, reference: Outputs) -> Scored:
        """How outputs are on the evaluation samples."""
        same = agreement(outputs, reference) if self.classifier else None
        return Scored(self.metric(outputs, self.labels), same, sqnr(outputs, reference))


def _batches(feeds: Sequence[dict[str, Array]], size: int) -> Iterator[dict[str, Array]]:
    for start in range(0, len(feeds), size):
        some = feeds[start : start + size]
        yield {name: np.concatenate([feed[name] for feed in some]) for name in some[0]}


def _rows(values: dict[str, Array]) -> Outputs:
    count = len(next(iter(values.values())))
    return [{name: array[i : i + 1] for name, array in values.items()} for i in range(count)]


def committed(name: str, data: Path = fashion_data.DEFAULT_DIR) -> Case:
    """A net trained here, on the 10,000 test images of Fashion-MNIST."""
    images, answers = fashion_data.load_split("test", data)
    feeds = [{"input": images[i : i + 1]} for i in range(len(images))]
    return Case(
        name=name,
        model=MODELS / f"{name}.onnx",
        calib=MODELS / "fashion_calib.npz",
        metric_name="top-1",
        metric=top1,
        classifier=True,
        feeds=feeds,
        labels=list(answers),
        batch=200,
    )


def outside(name: str, cache: Path | None = None) -> Case:
    """A model of `models/manifest.toml`; fetched if the cache lacks it."""
    entry = load_entry(name, cache)
    feeds, labels = labelled(entry.eval)
    return Case(
        name=name,
        model=entry.model,
        calib=entry.calib,
        metric_name=entry.metric_ref.partition(":")[2],
        metric=entry.metric,
        classifier=entry.metric is top1,
        feeds=feeds,
        labels=labels,
    )


def decoder() -> Case:
    """The language model trained here, on articles that it has not seen."""
    feeds, labels = labelled(MODELS / "decoder_eval.npz")
    return Case(
        name=DECODER,
        model=MODELS / "decoder.onnx",
        calib=MODELS / "decoder_calib.npz",
        metric_name="next_token_log_probability",
        metric=next_token_log_probability,
        classifier=False,
        feeds=feeds,
        labels=labels,
    )


def load_case(name: str, cache: Path | None = None) -> Case:
    """The case of that name."""
    if name == DECODER:
        return decoder()
    return committed(name) if name in COMMITTED else outside(name, cache)
