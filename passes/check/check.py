"""check: the result compared with the original on samples that no pass has seen."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxslim.errors import ConfigError, RuntimeUnavailable
from onnxslim.ir import Model
from onnxslim.passes.check.compare import Limits, compare, rehearse
from onnxslim.pipeline.base import Context, Pass, PassResult, Verdict, option
from onnxslim.pipeline.options import nearest
from onnxslim.runtime.guards import is_list
from onnxslim.runtime.metrics import BUILT_IN, is_metric
from onnxslim.runtime.samples import Feed, Samples

_SYNTHETIC = 8  # made-up samples: enough for the rules on collapse

_UNVERIFIED = (
    "Accuracy was not verified: no samples were given, so the result was compared with the "
    "original on made-up inputs only. Give --calib, or --eval with labels and --metric, for more."
)

_UNUSED = (
    "The labels were not used: they are not one number of a class for each row of one output. "
    "Give --metric module:function for other labels."
)

_ALL_SAME = (
    "All samples are the same: what was measured holds for that one input, and the check has seen "
    "no other. Give real and varied ones."
)


@dataclass(frozen=True, kw_only=True)
class Check(Pass):
    """Changes nothing. Fails on a collapse, and on a drop over `max_drop`.

    A drop is in the metric's units: 0.01 is one point of `top1` or `agreement`, and for `cosine`
    0.01 allows a mean cosine of 0.99. SQNR has its own limit, `min_sqnr`.
    """

    name: ClassVar[str] = "check"
    summary: ClassVar[str] = "compare the result with the original on held-out samples"

    metric: str | None = option(
        None,
        "what is compared; by itself top1 with labels, agreement for class scores, else sqnr",
        f"{', '.join(BUILT_IN)} or module:function",
    )
    max_drop: float | None = option(
        None, "the largest drop of the metric that passes (0.01 = one point)", "0 or more"
    )
    min_sqnr: float | None = option(None, "the least SQNR in dB of every output", "any number")
    atol: float = option(1e-6, "absolute part of the tolerance per element", "0 or more")
    rtol: float = option(1e-3, "relative part of the tolerance per element", "0 or more")

    def __post_init__(self) -> None:
        """Raises ValueError for an option out of range."""
        if self.metric is not None and not is_metric(self.metric):
            raise ValueError(
                f"metric={self.metric}: expected module:function or the name of a metric"
                f"{nearest(self.metric, BUILT_IN)}"
            )
        if self.max_drop is not None and not self.max_drop >= 0:
            raise ValueError(f"max_drop={self.max_drop}: expected 0 or more")
        if self.metric == "sqnr" and self.max_drop is not None:
            raise ValueError("max_drop does not go with metric=sqnr; give min_sqnr=20, in dB")
        for name, value in (("atol", self.atol), ("rtol", self.rtol)):
            if not value >= 0:
                raise ValueError(f"{name}={value}: expected 0 or more")

    def prepare(self, ctx: Context) -> None:
        """Run the original on one sample, so that a metric that does not suit shows at once."""
        self._require_samples(ctx)
        samples = ctx.env.evaluation
        if samples is not None:
            with suppress(RuntimeUnavailable):  # `run` says so
                rehearse(ctx.original, samples, self.metric, self._limits(), ctx.env.threads)

    def run(self, model: Model, ctx: Context) -> PassResult:
        """The verdict; none, with a note, where ONNX Runtime cannot run the original."""
        self._require_samples(ctx)
        synthetic = ctx.env.evaluation is None
        try:
            verdict = self._verdict(model, _samples(ctx), ctx, synthetic=synthetic)
        except RuntimeUnavailable as error:
            return PassResult(notes=(f"Not checked: {error}",))
        return PassResult(verdict=verdict, notes=self._notes(verdict, ctx))

    def _notes(self, verdict: Verdict, ctx: Context) -> tuple[str, ...]:
        samples = ctx.env.evaluation
        if samples is None:
            return (_UNVERIFIED,)
        unused = self.metric is None and verdict.metric in ("agreement", "sqnr")
        notes = (_UNUSED,) if unused and samples.labels is not None else ()
        given = samples if ctx.env.calib is None else ctx.env.calib
        return (*notes, _ALL_SAME) if _all_same(given) else notes

    def _require_samples(self, ctx: Context) -> None:
        wanted = self.metric not in (None, "sqnr") or self.max_drop is not None
        if wanted and ctx.env.evaluation is None:
            raise ConfigError(
                "check: a metric or max_drop needs samples to measure on: give --eval or --calib"
            )

    def _limits(self) -> Limits:
        return Limits(self.max_drop, self.min_sqnr, self.atol, self.rtol)

    def _verdict(self, model: Model, samples: Samples, ctx: Context, *, synthetic: bool) -> Verdict:
        return compare(
            ctx.original,
            model,
            samples,
            metric=self.metric,
            limits=self._limits(),
            threads=ctx.env.threads,
            synthetic=synthetic,
            optimize=ctx.env.arithmetic,
            progress=ctx.env.progress,
        )


def _samples(ctx: Context) -> Samples:
    from onnxslim.runtime.synthesize import synthesize

    if ctx.env.evaluation is not None:
        return ctx.env.evaluation
    if ctx.env.made_up is not None:
        return ctx.env.made_up
    return synthesize(ctx.original, _SYNTHETIC, ctx.env.seed, ctx.env.threads)


def _all_same(samples: Samples) -> bool:
    """Reads no further than the first that differs."""
    first = _content(samples[0])
    return len(samples) > 1 and all(
        _content(samples[index]) == first for index in range(1, len(samples))
    )


def _content(feed: Feed) -> dict[str, list[bytes]]:
    """The bytes of each array; a sequence has several."""
    parts = {name: value if is_list(value) else [value] for name, value in feed.items()}
    return {name: [np.asarray(part).tobytes() for part in each] for name, each in parts.items()}
