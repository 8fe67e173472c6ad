"""How good a quantized model is on some of the calibration samples: never on evaluation data."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from onnxslim.analyses.layer_ranges import Ranges, evenly
from onnxslim.ir import Array, Model
from onnxslim.passes.quant.decibels import to_db
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.metrics import is_real
from onnxslim.runtime.samples import Feed, Samples
from onnxslim.runtime.session import Session, open_session

SECONDS = 1.0
"""How long the runs of the float model may take; so few samples are used for slow models."""

MOST, LEAST = 16, 3

FLOOR_DB = 6.0
"""Signal to noise of the outputs below which the model is better left alone."""


class Judge:
    """Holds the float model's outputs on a few samples and compares others with them."""

    def __init__(
        self, model: Model, samples: Samples, env: Environment, seen: Ranges | None = None
    ) -> None:
        """`seen`: a run of these samples that may have kept outputs; then there is none here."""
        self.env = env
        self._feeds: list[Feed] = []
        self._expected: list[Mapping[str, Array]] = []
        if seen is None or not seen.outputs:
            self._run(model, samples)
            return
        most = max(LEAST, int(SECONDS / max(seen.seconds, 1e-9)))
        indices = sorted(seen.outputs)
        for index in [indices[i] for i in evenly(len(indices), most)]:
            self._feeds.append(samples[index])
            self._expected.append(seen.outputs[index])

    def _run(self, model: Model, samples: Samples) -> None:
        session = self._open(model)
        start = time.perf_counter()
        for index in evenly(len(samples), MOST):
            feed = samples[index]
            self._feeds.append(feed)
            self._expected.append(session.run(feed))
            if len(self._feeds) >= LEAST and time.perf_counter() - start > SECONDS:
                break

    def sqnr_db(self, model: Model | Session, most: int = MOST) -> float:
        """Signal to noise of the outputs in dB, the mean over outputs; -inf for NaN or Inf where
        the float model has numbers. Where it has none itself, nothing is compared.

        `most`: samples that are run at most.
        """
        session = model if isinstance(model, Session) else self._open(model)
        outputs = [session.run(feed) for feed in self._feeds[:most]]
        names = [name for name, value in self._expected[0].items() if is_real(value)]
        return float(np.mean([self._output_db(name, outputs) for name in names])) if names else 0.0

    def blind_sample(self) -> Feed | None:
        """A sample for which the float model gives not a single finite number, if there is one."""
        for feed, outputs in zip(self._feeds, self._expected, strict=True):
            floats = [x for x in outputs.values() if is_real(x) and x.size]
            if floats and not any(np.isfinite(x).any() for x in floats):
                return feed
        return None

    def _open(self, model: Model) -> Session:
        return open_session(model, threads=self.env.threads, optimize=self.env.arithmetic)

    def _output_db(self, name: str, outputs: Sequence[Mapping[str, Array]]) -> float:
        signal = noise = 0.0
        for expected, output in zip(self._expected, outputs, strict=False):
            if expected[name].shape != output[name].shape:
                return -np.inf
            known = np.isfinite(expected[name])
            exact = expected[name][known].astype(np.float64)
            signal += float((exact**2).sum())
            noise += float(((output[name][known] - exact) ** 2).sum())
        if not np.isfinite(noise):
            return -np.inf
        return to_db(signal, noise)
