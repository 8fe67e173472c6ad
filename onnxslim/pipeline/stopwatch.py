"""Two models timed in turn on one input, as the guard and the report want it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxslim.ir import Model
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.latency import LatencyResult, interleaved_latency
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.synthesize import synthesize


@dataclass(frozen=True)
class Comparison:
    """Two models timed in turn: milliseconds of one run of each."""

    before_ms: float
    after_ms: float
    ratio: float  # how many times as long as before a run takes now
    noise: float  # relative: a ratio within 1 +- noise says nothing
    slower: bool  # by more than the noise


Stopwatch = Callable[[Model, Model, Environment], Comparison]
"""Times two models; raises an OnnxSlimError where they cannot run."""


def judge_in_turn(before: Model, after: Model, env: Environment) -> Comparison:
    """The guard's stopwatch: which of two is faster, known from few rounds where it is plain."""
    return _timed(before, after, env, least=3)


def time_in_turn(before: Model, after: Model, env: Environment) -> Comparison:
    """The report's stopwatch: real runs on one sample, with the threads of the environment, until
    it is plain which is faster, in five rounds or more."""
    return _timed(before, after, env, least=5)


def _timed(before: Model, after: Model, env: Environment, least: int) -> Comparison:
    env.progress("timing", 0, 0)
    models = [before, env.opened.find(after) or after]
    feed, enough = sample_of(before, env), LatencyResult.is_plain
    found = interleaved_latency(models, feed, env.threads, enough=enough, least=least)
    return Comparison(found.ms[0], found.ms[1], found.ratio(), found.noise, found.is_slower())


def sample_of(model: Model, env: Environment) -> Feed:
    """The first sample, or one that is made up."""
    for samples in (env.calib, env.evaluation):
        if samples is not None and len(samples):
            return samples[0]
    return synthesize(model, 1, env.seed)[0]
