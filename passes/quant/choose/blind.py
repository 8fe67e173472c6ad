"""Language models without samples: which of two quantized forms is better, on made-up texts.

Some channels of a language model's activations are so large that quantizing them as they come
ruins the outputs, which made-up texts show as real ones do; weights alone do not suffer from it.
"""

from __future__ import annotations

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
    model: Model, one: Model, other: Model, token: Feed, goal_db: float, env: Environment
) -> bool:
    """Whether `other` is closer to the float model's outputs than `one`, and either that misses the
    goal or `other` is not slower for `token`, the feed of one token.

    Raises RuntimeUnavailable where one of them does not run.
    """
    judge = Judge(model, synthesize(model, TEXTS, env.seed, env.threads), env)
    first, second = judge.sqnr_db(one), judge.sqnr_db(other)
    if second <= first + CLEAR_DB:
        return False
    if first < goal_db:
        return True
    enough = LatencyResult.is_plain
    found = interleaved_latency([one, other], token, env.threads, _TURNS_S, enough=enough)
    return not found.is_slower()
