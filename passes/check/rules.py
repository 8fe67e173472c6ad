"""When a result has collapsed, whatever drop is allowed: the rules that always hold."""

from __future__ import annotations

from collections.abc import Iterable

from onnxslim.passes.check.noise import OutputNoise
from onnxslim.runtime.metrics import Score

_SHARE = 0.5  # an accuracy below this share of the original's is a collapse
_LEAST_DB = 0.0  # below, the noise is stronger than the signal


def collapse(
    outputs: Iterable[OutputNoise], metric: str, score: Score | None, *, synthetic: bool
) -> list[str]:
    """Why the result does not do the original's job at all; empty when none of that holds.

    On made-up inputs no rule looks at classes: their scores are mere noise there.
    """
    found = [reason for noise in outputs for reason in _output_reasons(noise, synthetic)]
    if score is not None and not synthetic and _halved(score):
        found.append(
            f"{metric} is {score.after:.4g}, below half of the original's {score.before:.4g}"
        )
    return found


def _output_reasons(noise: OutputNoise, synthetic: bool) -> list[str]:
    reasons = list(noise.problems)
    if noise.broken:
        reasons.append(
            f"output '{noise.name}' has {noise.broken} NaN or Inf where the original had numbers"
        )
    db = noise.sqnr_db
    if db is not None and db < _LEAST_DB and noise.outside:
        reasons.append(f"output '{noise.name}' has more noise than signal ({db:.1f} dB)")
    if not synthetic and noise.agreement is not None and noise.agreement < _SHARE:
        reasons.append(
            f"output '{noise.name}' equals the original's in {noise.agreement:.1%} of its elements"
        )
    return reasons


def _halved(score: Score) -> bool:
    """NaN counts; a metric that is not above zero has no half."""
    return score.before > 0 and not score.after >= _SHARE * score.before
