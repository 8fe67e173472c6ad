"""The models that are pruned, what they are expected to lose, and inputs of several sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from models.samples import read_samples
from models.zoo import load_entry
from tests.bench.simplify.architectures import ARCHITECTURES, REST, Architecture
from tests.bench.simplify.subjects import SEED, Feed

CNN, NORMED, ATTENTION = "CNN", "CNN with LayerNorm", "transformer"
MOST_LEFT = {CNN: 0.65, NORMED: 0.65, ATTENTION: 0.80}
"""The share of its MACs that a model of each family may keep at most."""
_MIXING = frozenset(
    """
    vit swin maxvit deit mixer gmlp levit efficientformer xcit pvt twins beit cait coat tnt
    visformer davit gcvit mvitv2 resmlp convit pit nest tiny edgenext mobilevit mobilevitv2
    crossvit efficientvit botnet26t focalnet minilm smollm2 poolformer
    """.split()  # noqa: SIM905 - one list of words
)
"""First words of the names of models that mix tokens, by attention or otherwise."""
_NORMED = ("convnext",)
SHIPPED = ("minilm_l6", "ppocrv4_rec", "ppocrv4_det", "smollm2_135m", "efficientnet_lite0")
_UNEQUAL = 8  # samples among which one of another shape is looked for


@dataclass(frozen=True)
class Subject:
    """A model file, and where its inputs come from: samples, or noise of the right size."""

    name: str
    path: Path
    samples: Path | None = None
    architecture: Architecture | None = None

    @property
    def family(self) -> str:
        """What the model is made of; transformers here are all that mix tokens."""
        name = self.name.removeprefix("timm_")
        if name.partition("_")[0] in _MIXING:
            return ATTENTION
        return NORMED if name.startswith(_NORMED) else CNN

    def files(self) -> list[Path]:
        """What was exported: the file, and its weights where these are in one of their own."""
        weights = self.path.with_name(f"{self.path.name}.data")
        return [f for f in (self.path, weights) if self.architecture and f.exists()]

    def feeds(self) -> list[Feed]:
        """Inputs of different sizes, that of latency first; the same ones every time."""
        if self.samples is not None:
            return list(_of_all_shapes(self.samples))
        assert self.architecture is not None
        random, size = np.random.default_rng(SEED), self.architecture.size
        shapes: list[tuple[int, ...]] = [(batch, 3, size, size) for batch in (1, 2, 3)]
        if self.architecture.suite == "det":
            shapes = [(3, size, size), (3, size, size + 96)]
        return [{"input": random.random(shape, np.float32) * 2 - 1} for shape in shapes]


def _of_all_shapes(path: Path) -> Iterator[Feed]:
    """The first sample, the same one twice in one batch, and one of another shape."""
    first, *others = [feed for feed, _ in islice(read_samples(path), _UNEQUAL)]
    yield first
    yield {name: np.concatenate([array, array]) for name, array in first.items()}
    shape = [array.shape for array in first.values()]
    yield from islice((o for o in others if [a.shape for a in o.values()] != shape), 1)


def subjects(zoo: Path, cache: Path | None = None) -> dict[str, Subject]:
    """All, whether their files are there or not: the shipped ones, torchvision's, then timm's."""
    found = [Subject(n, e.model, e.calib) for n in SHIPPED for e in [load_entry(n, cache)]]
    known = sorted((*ARCHITECTURES, *REST), key=lambda a: (a.suite == "timm", a.suite != "tv"))
    found += [Subject(a.file, zoo / f"{a.file}.onnx", architecture=a) for a in known]
    return {subject.name: subject for subject in found}
