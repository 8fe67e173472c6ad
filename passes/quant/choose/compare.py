"""Language models: which of two quantized forms is better.

Some channels of a language model's activations are so large that quantizing them as they come, or
in fixed ranges, ruins the outputs; weights alone do not suffer from it. Made-up texts show that as
real ones do.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnxslim.ir import Model
from onnxslim.passes.quant.choose.judge import Judge
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.latency import LatencyResult, interleaved_latency
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.synthesize import synthesize

TEXTS = 4

CLEAR_DB = 1.0
"""The gain in signal to noise of the outputs below which two forms are alike."""

_TURNS_S = 2.0


def is_better(
    model: Model,
    one: Model | None,
    other: Model,
    feeds: Iterable[Feed],
    goal_db: float,
    env: Environment,
) -> bool:
    """Whether `other` is closer to the float model's outputs than `one`, and either that misses the
    goal or `other` is not slower for any of `feeds`, as far as the target is here to be timed.

    `one` is None where it came to nothing: then `other` needs only to meet the goal. Judged on
    calibration samples, or made-up texts. Raises RuntimeUnavailable where one does not run.
    """
    judge = Judge(model, env.calib or synthesize(model, TEXTS, env.seed, env.threads), env)
    second = judge.sqnr_db(other)
    if one is None:
        return second >= goal_db
    first = judge.sqnr_db(one)
    if second <= first + CLEAR_DB:
        return False
    if first < goal_db or not env.target.here:
        return first < goal_db
    return not any(_is_slower(one, other, feed, env) for feed in feeds)


def _is_slower(one: Model, other: Model, feed: Feed, env: Environment) -> bool:
    enough = LatencyResult.is_plain
    return interleaved_latency([one, other], feed, env.threads, _TURNS_S, enough=enough).is_slower()
