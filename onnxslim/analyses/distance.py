"""How far the outputs of a model are from those of another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxslim.ir import Array, Model
from onnxslim.runtime.samples import Samples
from onnxslim.runtime.session import Optimize, open_session

_CHUNK = 1 << 16  # numbers: both parts stay in the cache


@dataclass
class Distance:
    """Squared error and power of every output, feed by feed; 0 where it cannot be compared."""

    sizes: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    error: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    power: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, reference: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Take in the outputs for one feed."""
        for name, wanted in reference.items():
            found, error, power, size = outputs[name], 0.0, 0.0, 1
            if _comparable(wanted):
                size = max(wanted.size, 1)
                if wanted.shape == found.shape:
                    error, power = _squares(found, wanted)
            self.sizes.setdefault(name, []).append(size)
            self.error.setdefault(name, []).append(error)
            self.power.setdefault(name, []).append(power)

    def value(self) -> float | None:
        """The mean over outputs; None where no output could be compared."""
        shares = [sum(self.error[n]) / sum(p) for n, p in self.power.items() if sum(p) > 0]
        return float(np.mean(shares)) if shares else None

    def by_feed(self) -> Array | None:
        """The same for each feed, [feeds]: squared error per number over the mean power of one, so
        that long texts count as much as short ones do."""
        shares = [
            np.divide(self.error[n], size) / np.mean(np.divide(self.power[n], size))
            for n, size in self.sizes.items()
            if sum(self.power[n]) > 0
        ]
        return np.mean(shares, axis=0) if shares else None


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
    return _compared(wanted, model, samples, threads).value()


def errors_of(
    wanted: Sequence[Mapping[str, Array]], found: Iterable[Mapping[str, Array]]
) -> Array | None:
    """Like `errors_to`, where both are known."""
    return _gathered(wanted, found).by_feed()


def errors_to(
    wanted: Sequence[Mapping[str, Array]],
    model: Model,
    samples: Samples,
    threads: int,
    optimize: Optimize = "all",
) -> Array | None:
    """Like `distance_to`, sample by sample, [samples]."""
    return _compared(wanted, model, samples, threads, optimize).by_feed()


def _compared(
    wanted: Sequence[Mapping[str, Array]],
    model: Model,
    samples: Samples,
    threads: int,
    optimize: Optimize = "all",
) -> Distance:
    session = open_session(model, threads=threads, optimize=optimize)
    return _gathered(wanted, (session.run(feed) for feed in samples))


def _gathered(
    wanted: Sequence[Mapping[str, Array]], found: Iterable[Mapping[str, Array]]
) -> Distance:
    made = Distance()
    for reference, outputs in zip(wanted, found, strict=True):
        made.add(reference, outputs)
    return made


def _squares(found: Array, wanted: Array) -> tuple[float, float]:
    """sum (found - wanted)^2 and sum wanted^2 in float64, some numbers at a time: the logits of a
    language model are large."""
    error = power = 0.0
    flat = found.reshape(-1), wanted.reshape(-1)
    for at in range(0, wanted.size, _CHUNK):
        here, there = (part[at : at + _CHUNK].astype(np.float64) for part in flat)
        here -= there
        error += float(here @ here)
        power += float(there @ there)
    return error, power


def _comparable(array: Array) -> bool:
    """Whether it is a float tensor: a sequence comes as a list."""
    return getattr(array, "dtype", np.dtype(object)).kind == "f"
