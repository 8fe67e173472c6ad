"""The models that are simplified, with inputs for them at several batch sizes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.samples import read_samples
from models.zoo import load_entry
from tests.bench.simplify.architectures import ARCHITECTURES, SEVEN

Feed = dict[str, npt.NDArray[Any]]
SHIPPED = (
    "efficientnet_lite0",
    "ppocrv4_rec",
    "ppocrv4_det",
    "ppocr_cls",
    "magika",
    "minilm_l6",
    "smollm2_135m",
)
FRESH = tuple(f"{name}_fresh" for name in SEVEN)
BATCHES = (1, 2, 3)
SEED = 0


@dataclass(frozen=True)
class Subject:
    """A model file; `samples` is where real inputs are, `size` the edge of a random image."""

    name: str
    path: Path
    samples: Path | None = None
    size: int = 0

    def feed(self, batch: int) -> Feed:
        """The same inputs every time: seeded noise, or real samples of one shape."""
        if self.samples is None:
            shape = (batch, 3, self.size, self.size)
            random = np.random.default_rng((SEED, batch))
            return {"input": random.standard_normal(shape, np.float32)}
        first, *others = list(itertools.islice(_samples(self.samples), 8))
        rows = [first, *(o for o in others if _shapes(o) == _shapes(first))]
        some = list(itertools.islice(itertools.cycle(rows), batch))
        return {name: np.concatenate([row[name] for row in some]) for name in first}

    @property
    def digest(self) -> str:
        """Of the file."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            for block in iter(lambda: file.read(1 << 22), b""):
                digest.update(block)
        return digest.hexdigest()[:16]


def _samples(path: Path) -> Iterator[Feed]:
    return (feed for feed, _ in read_samples(path))


def _shapes(feed: Feed) -> list[tuple[int, ...]]:
    return [array.shape for array in feed.values()]


def subjects(zoo: Path, cache: Path | None = None) -> dict[str, Subject]:
    """All that are there: fresh exports, shipped models, then the other exports."""
    found = [Subject(f"{name}_fresh", zoo / f"{name}_fresh.onnx", size=224) for name in SEVEN]
    for name in SHIPPED:
        entry = load_entry(name, cache)
        found.append(Subject(name, entry.model, samples=entry.calib))
    found += [Subject(a.file, zoo / f"{a.file}.onnx", size=a.size) for a in ARCHITECTURES]
    return {subject.name: subject for subject in found if subject.path.exists()}
