"""How long models take for one feed, measured in turns so that they see the same machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev
from time import get_clock_info, perf_counter, thread_time

from onnxslim.ir import Model
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import Session, open_session

_WARM_UP = 1  # the turn that finds how often to repeat is another
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 400
_LEAST_TURN = 5e-4  # seconds; a shorter run is repeated within its turn
_FLOOR = 0.02  # two sessions of one model differ by about this much, by where their memory lies
_ALPHA = 0.01
_STUDENT = {3: 9.925, 4: 5.841, 5: 4.604, 6: 4.032, 7: 3.707, 8: 3.499, 9: 3.355, 10: 3.250}
"""Rounds -> Student's t of two sides at `_ALPHA`; it falls further for more than ten."""
_LEAST_SPREAD = 0.03  # of the logarithm of a ratio: so much it varies where few rounds show less
_BESIDE = math.log(1.1)  # which more rounds must not be needed to tell from 1


@dataclass(frozen=True)
class LatencyResult:
    """Milliseconds of one run of each model, by rounds in which each has had its turn."""

    rounds: tuple[tuple[float, ...], ...]  # [round][model]

    @property
    def ms(self) -> tuple[float, ...]:
        """The median of each model."""
        return tuple(median(times) for times in zip(*self.rounds, strict=True))

    def ratios(self, model: int = 1, base: int = 0) -> list[float]:
        """Time of a model over that of another, round by round."""
        return [times[model] / times[base] for times in self.rounds]

    def ratio(self, model: int = 1, base: int = 0) -> float:
        """The median over the rounds: under 1 the model is faster than the base."""
        return median(self.ratios(model, base))

    def interval(self, model: int = 1, base: int = 0) -> tuple[float, float]:
        """99 % confidence interval of `ratio`, or the whole range for few rounds."""
        return median_interval(self.ratios(model, base), _ALPHA)

    @property
    def noise(self) -> float:
        """Relative: ratios of two models within 1 +- noise say nothing."""
        spread = 0.0
        for model in range(1, len(self.rounds[0])):
            low, high = self.interval(model)
            spread = max(spread, (high - low) / 2 / self.ratio(model))
        return max(spread, _FLOOR)

    def is_slower(self, model: int = 1, base: int = 0) -> bool:
        """Whether a model takes longer than the base by more than the noise."""
        return self.interval(model, base)[0] > 1 and self.ratio(model, base) > 1 + _FLOOR

    def is_plain(self, model: int = 1, base: int = 0) -> bool:
        """Whether the 99 % interval of the geometric mean ratio, by Student's t, lies a tenth or
        more to one side of 1: more rounds tell nothing new. With three rounds that takes a ratio
        of 1.31 at least, with nine one of 1.14."""
        logs = [math.log(ratio) for ratio in self.ratios(model, base)]
        student = _STUDENT.get(min(len(logs), max(_STUDENT)))
        if student is None:
            return False
        half = student * max(stdev(logs), _LEAST_SPREAD) / math.sqrt(len(logs))
        return abs(mean(logs)) - half > _BESIDE


def interleaved_latency(
    models: Sequence[Model | Session],
    feed: Feed,
    threads: int = 1,
    budget_s: float = 3.0,
    enough: Callable[[LatencyResult], bool] | None = None,
    least: int = _LEAST_ROUNDS,
) -> LatencyResult:
    """Run all models in turns on one feed until the time is up, and at least five rounds.

    The order within a round is turned around each time. With `enough`, until the rounds so far
    satisfy it, if that is earlier; not before `least` rounds. With one thread, which is the
    caller's then, its processor time counts: other programs on the machine do not add to it.
    Raises RuntimeUnavailable.
    """
    clock = _clock(threads)
    sessions = [m if isinstance(m, Session) else open_session(m, threads=threads) for m in models]
    start = perf_counter()
    for session in sessions:
        for _ in range(_WARM_UP):
            session.run(feed)
    repeats = [max(1, math.ceil(_LEAST_TURN / _turn(s, feed, 1, clock))) for s in sessions]
    rounds: list[tuple[float, ...]] = []
    while len(rounds) < _LEAST_ROUNDS or (
        len(rounds) < _MOST_ROUNDS and perf_counter() - start < budget_s
    ):
        backwards = len(rounds) % 2 == 1
        rounds.append(_round(sessions, feed, repeats, clock, backwards=backwards))
        if enough is not None and len(rounds) >= least and enough(LatencyResult(tuple(rounds))):
            break
    return LatencyResult(tuple(rounds))


def _clock(threads: int) -> Callable[[], float]:
    fine = get_clock_info("thread_time").resolution < 1e-6  # coarse on Windows
    return thread_time if threads == 1 and fine else perf_counter


def _round(
    sessions: Sequence[Session],
    feed: Feed,
    repeats: Sequence[int],
    clock: Callable[[], float],
    *,
    backwards: bool,
) -> tuple[float, ...]:
    order = range(len(sessions))
    times = [0.0] * len(sessions)
    for i in reversed(order) if backwards else order:
        times[i] = _turn(sessions[i], feed, repeats[i], clock) * 1e3
    return tuple(times)


def _turn(session: Session, feed: Feed, repeats: int, clock: Callable[[], float]) -> float:
    """Seconds of one run, the mean of some in a row."""
    start = clock()
    for _ in range(repeats):
        session.run(feed)
    return (clock() - start) / repeats


def median_interval(values: Sequence[float], alpha: float) -> tuple[float, float]:
    """Confidence interval of the median that assumes nothing of the distribution.

    The k-th smallest and k-th largest of n values, with the largest k for which
    P(Binomial(n, 1/2) < k) <= alpha / 2 (Conover, Practical Nonparametric Statistics, 3.2); the
    smallest and largest where no k does.
    """
    ordered, n = sorted(values), len(values)
    below, k = 0, 0
    while k < n and 2 * (below + math.comb(n, k)) <= alpha * 2**n:
        below += math.comb(n, k)
        k += 1
    k = max(k, 1)
    return ordered[k - 1], ordered[n - k]
