"""The original and the result run side by side on the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxslim.errors import ConfigError, DataError, RuntimeUnavailable
from onnxslim.ir import Array, Model
from onnxslim.passes.check.noise import NoiseMeter, OutputNoise, sqnr
from onnxslim.passes.check.rules import collapse
from onnxslim.pipeline.base import Progress, Verdict, silent
from onnxslim.runtime.guards import is_array
from onnxslim.runtime.metrics import Metric, Outputs, Score, default_metric, make_metric
from onnxslim.runtime.samples import Feed, Samples
from onnxslim.runtime.session import Optimize, Session, open_session

_VARIES = (
    "the original's own outputs differ from run to run, so that nothing can be compared: give its "
    "random operators a seed, or --no-check"
)


@dataclass(frozen=True)
class Limits:
    """What the result must keep to. `max_drop` is in the metric's units: 0.01 of top1 is a point.

    An element is within tolerance when |y - x| <= atol + rtol |x|.
    """

    max_drop: float | None = None
    min_sqnr: float | None = None  # dB, of every real-valued output
    atol: float = 1e-6
    rtol: float = 1e-3


def compare(
    original: Model,
    model: Model,
    samples: Samples,
    *,
    metric: str | None = None,
    limits: Limits | None = None,
    threads: int = 1,
    synthetic: bool = False,
    optimize: Optimize = "all",
    progress: Progress = silent,
) -> Verdict:
    """Run both models over the samples and judge the result.

    Streams: outputs are kept only for a metric of the user's own. Without a metric: `top1` for a
    classifier with labels, `agreement` for one without, else `sqnr`. On made-up inputs always
    `sqnr`, and no limit on a drop. `optimize`: how far ONNX Runtime may fuse the result.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the original.
        DataError: the original does not run on a sample, or labels or the metric's function fail.
        ConfigError: the metric or the limit does not suit the model.
    """
    limits = limits or Limits()
    before = open_session(original, threads=threads)
    try:
        after = open_session(model, threads=threads, optimize=optimize)
    except RuntimeUnavailable as error:
        name = metric or "sqnr"
        return _failed(name, limits, len(samples), synthetic, f"the result does not run: {error}")
    run = _Run(before, after, samples, limits, synthetic)
    return run.verdict("sqnr" if synthetic else metric, progress)


def rehearse(
    original: Model, samples: Samples, metric: str | None, limits: Limits, threads: int
) -> None:
    """Run the original on the first sample, so that a metric that does not suit shows at once.

    Raises what `compare` raises, except what only shows once all samples are in.
    """
    session = open_session(original, threads=threads)
    was = _original_outputs(session, samples[0], 0)
    labels = samples.labels
    _, chosen = _choose(metric, was, labels, limits)
    if chosen is not None:
        chosen.foresee(was, labels or ())
        chosen.add(was, was, None if labels is None else labels[0])


def _choose(
    name: str | None, was: Outputs, labels: Sequence[Array] | None, limits: Limits
) -> tuple[str, Metric | None]:
    name = name or default_metric(was, labels)
    if name == "sqnr" and limits.max_drop is not None:
        raise ConfigError(
            f"max_drop {limits.max_drop} has no metric to be taken from: without class scores "
            "and labels there is only the noise; give --metric (top1, agreement, cosine, "
            "module:function), or the least SQNR in dB with check{min_sqnr=20}"
        )
    return name, make_metric(name, was)


def _original_outputs(session: Session, feed: Feed, index: int) -> dict[str, Array]:
    try:
        return session.run(feed)
    except RuntimeUnavailable as error:
        raise DataError(f"sample {index} does not run on the original: {error}") from error


class _Run:
    """One comparison."""

    def __init__(
        self, before: Session, after: Session, samples: Samples, limits: Limits, synthetic: bool
    ) -> None:
        self._before, self._after = before, after
        self._samples, self._limits, self._synthetic = samples, limits, synthetic
        self._meter = NoiseMeter(limits.atol, limits.rtol)

    def verdict(self, name: str | None, progress: Progress) -> Verdict:
        """Stream over the samples, then judge."""
        labels, total = self._samples.labels, len(self._samples)
        metric: Metric | None = None
        for index, feed in enumerate(self._samples):
            progress("checking", index, total)
            was = _original_outputs(self._before, feed, index)
            if index == 0:
                name, metric = _choose(name, was, labels, self._limits)
            try:
                now = self._after.run(feed)
            except RuntimeUnavailable as error:
                reason = f"the result does not run on sample {index}: {error}"
                return _failed(name or "", self._limits, total, self._synthetic, reason)
            if self._meter.add(was, now) and metric is not None:
                metric.add(was, now, None if labels is None else labels[index])
        progress("checking", total, total)
        return self._judged(name or "sqnr", metric, total)

    def _judged(self, name: str, metric: Metric | None, total: int) -> Verdict:
        outputs = self._meter.outputs
        broken = any(noise.problems for noise in outputs.values())
        score = None if metric is None or broken else metric.score()
        noise = sqnr(outputs)
        reasons = collapse(outputs.values(), name, score, synthetic=self._synthetic)
        reasons += _over_limits(name, score, noise, self._limits)
        if reasons and self._varies():
            reasons.append(_VARIES)
        return Verdict(
            metric=name,
            before=None if score is None else score.before,
            after=min(noise.values(), default=None) if score is None else score.after,
            drop=None if score is None else score.drop,
            limit=self._limits.max_drop,
            samples=total,
            sqnr_db=noise,
            passed=not reasons,
            synthetic=self._synthetic,
            interval=None if score is None else score.interval,
            drop_interval=None if score is None else score.drop_interval,
            within_tolerance=_within_tolerance(outputs),
            reasons=tuple(reasons),
        )

    def _varies(self) -> bool:
        """Whether the original gives two outputs for one sample: it draws random numbers."""
        one, other = (self._before.run(self._samples[0]) for _ in range(2))
        return any(
            is_array(value) and value.tobytes() != other[name].tobytes()
            for name, value in one.items()
        )


def _over_limits(
    name: str, score: Score | None, noise: Mapping[str, float], limits: Limits
) -> list[str]:
    reasons: list[str] = []
    if limits.max_drop is not None and score is not None and not score.drop <= limits.max_drop:
        reasons.append(
            f"{name} dropped by {score.drop:.4g} from {score.before:.4g} to {score.after:.4g}, "
            f"more than {limits.max_drop:g}"
        )
    for output, db in noise.items():
        if limits.min_sqnr is not None and db < limits.min_sqnr:
            reasons.append(
                f"output '{output}' has {db:.1f} dB SQNR, fewer than {limits.min_sqnr:g}"
            )
    return reasons


def _within_tolerance(outputs: Mapping[str, OutputNoise]) -> dict[str, float]:
    """Per output, the share of elements within tolerance (equal ones, where not real)."""
    return {
        name: ((noise.count - noise.outside - noise.broken) if noise.real else noise.same)
        / noise.count
        for name, noise in outputs.items()
        if noise.count
    }


def _failed(name: str, limits: Limits, count: int, synthetic: bool, reason: str) -> Verdict:
    return Verdict(
        metric=name,
        before=None,
        after=None,
        drop=None,
        limit=limits.max_drop,
        samples=count,
        sqnr_db={},
        passed=False,
        synthetic=synthetic,
        reasons=(reason,),
    )
