"""Two models timed in turn on one input, as the guard and the report want it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxslim.ir import Model
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Feed


@dataclass(frozen=True)
class Comparison:
    """Milliseconds of one run before and after, and the noise of their ratio."""

    before_ms: float
    after_ms: float
    noise: float  # relative: a ratio within 1 +- noise says nothing

    @property
    def ratio(self) -> float:
        """How many times as long as before a run takes now."""
        return self.after_ms / self.before_ms

    @property
    def slower(self) -> bool:
        """Whether it takes longer by more than the noise."""
        return self.ratio > 1.0 + self.noise


Stopwatch = Callable[[Model, Model, Environment], Comparison]
"""Times two models; raises an OnnxSlimError where they cannot run."""


def time_in_turn(before: Model, after: Model, env: Environment) -> Comparison:
    """The default stopwatch: real runs on one sample, with the threads of the environment."""
    from onnxslim.runtime.latency import interleaved_latency

    times = interleaved_latency([before, after], _feed(before, env), threads=env.threads)
    return Comparison(times.ms[0], times.ms[1], times.noise)


def _feed(model: Model, env: Environment) -> Feed:
    for samples in (env.calib, env.evaluation):
        if samples is not None and len(samples):
            return samples[0]
    from onnxslim.runtime.synthesize import synthesize

    return synthesize(model, 1, env.seed)[0]
