"""How far the outputs of a model are from those of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxslim.ir import Array, Model
from onnxslim.runtime.samples import Samples
from onnxslim.runtime.session import open_session


@dataclass
class Distance:
    """Squared error over variance of every float output, summed over feeds."""

    error: dict[str, float] = field(default_factory=dict[str, float])
    power: dict[str, float] = field(default_factory=dict[str, float])

    def add(self, reference: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Take in the outputs for one feed."""
        for name, wanted in reference.items():
            found = outputs[name]
            if not _comparable(wanted) or wanted.shape != found.shape:
                continue
            wide = wanted.astype(np.float64)
            error = float(np.square(found.astype(np.float64) - wide).sum())
            self.error[name] = self.error.get(name, 0.0) + error
            self.power[name] = self.power.get(name, 0.0) + float(np.square(wide).sum())

    def value(self) -> float | None:
        """The mean over outputs; None where no output could be compared."""
        shares = [self.error[n] / p for n, p in self.power.items() if p > 0]
        return float(np.mean(shares)) if shares else None


def distance(reference: Model, model: Model, samples: Samples, threads: int) -> float | None:
    """The mean relative squared error of the model's outputs; None where none can be compared.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run one of the models.
    """
    wanted = outputs_of(reference, samples, threads)
    return distance_to(wanted, model, samples, threads)


def outputs_of(model: Model, samples: Samples, threads: int) -> list[dict[str, Array]]:
    """What the model gives for each feed."""
    session = open_session(model, threads=threads)
    return [session.run(feed) for feed in samples]


def distance_to(
    wanted: Sequence[Mapping[str, Array]], model: Model, samples: Samples, threads: int
) -> float | None:
    """Like `distance`, from outputs that are known."""
    session = open_session(model, threads=threads)
    found = Distance()
    for reference, feed in zip(wanted, samples, strict=True):
        found.add(reference, session.run(feed))
    return found.value()


def _comparable(array: Array) -> bool:
    """Whether it is a float tensor: a sequence comes as a list."""
    return getattr(array, "dtype", np.dtype(object)).kind == "f"
