"""Gradient descent on a student until the time is up: warmup, and a cosine to zero."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.distill.graph.api import Tensor, torch
from onnxslim.passes.distill.graph.checkpoint import Checkpoint, Saved
from onnxslim.passes.distill.graph.data import Part, Pool
from onnxslim.passes.distill.graph.hints import Maps
from onnxslim.passes.distill.graph.loss import Target, loss_of
from onnxslim.passes.distill.graph.optimizer import Optimizer
from onnxslim.passes.distill.graph.program import Program
from onnxslim.passes.distill.graph.rates import (
    CAREFUL,
    FEWEST,
    LARGEST,
    MOST,
    SHARE,
    best_rate,
)
from onnxslim.passes.distill.graph.rounds import Rounds
from onnxslim.passes.distill.graph.weights import Weights
from onnxslim.pipeline.base import Progress

WARMUP = 0.05  # of the time
CLIP = 1.0  # norm of the gradient of all leaves together
OFTEN = 25  # times that a sample is seen, from which on half of a batch are mixes
TIMED = 0.01  # of the time, to see how long a step takes
BATCH, SMALLEST = 64, 16  # samples per step, and where the time is enough for few steps
ENOUGH = 300  # steps, from which on larger batches take their place
CHECKS = 20  # looks at the samples held out, fewer where they would take more than so much:
LOOKING = 0.1  # of the time
PATIENCE = 5  # of them in a row of which those held out err more and those learnt less end it


@dataclass(frozen=True)
class Settings:
    """How long and how: `steps` overrules `seconds` where it is not 0; `batch` 0 and `rate` 0 are
    chosen."""

    seconds: float
    steps: int = 0
    batch: int = 0
    rate: float = 0.0
    temperature: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """What came of it: losses on the samples held out, and how the training ended."""

    before: float
    after: float
    steps: int
    rate: float
    ended: str


@dataclass
class Trainer:
    """One training. `targets` with their weights; `cuts` are values that no gradient passes,
    `maps` lead from values of the student to those of the teacher.

    `train` and `mixes` are indices into the pool; `mixes` are for a training that sees the others
    so often that it would learn them by heart.
    """

    program: Program
    weights: Weights
    pool: Pool
    targets: Sequence[tuple[Target, float]]
    train: Sequence[int]
    mixes: Sequence[int]
    held_out: Sequence[int]
    settings: Settings
    progress: Progress
    checkpoint: Checkpoint | None = None
    cuts: frozenset[str] = frozenset()
    maps: Maps = field(default_factory=lambda: Maps({}, {}))
    clock: Callable[[], float] = time.monotonic

    def run(self) -> Trained:
        """Train; the weights are the best on the samples held out, which may be the first."""
        start, first = self.clock(), self.weights.state()
        before = self.error()
        saved = self.checkpoint.load() if self.checkpoint is not None else None
        if saved is not None and saved.ended:
            return self._done_before(saved, before)
        rate = self._rate(first, before, saved)
        self._optimizer = Optimizer(self.weights.leaves)
        self._best: Mapping[str, Any] = first
        self._best_error = before
        self._looked, self._worse, self._apart = 0.0, 0, 1 / CHECKS
        self._low, self._losses = (math.inf, math.inf), list[float]()
        done, spent = (0, 0.0) if saved is None else self._resume(saved)
        ended, done = self._steps(rate, done, start - spent)
        self.weights.load(self._best)
        if self.checkpoint is not None:
            spent = self.clock() - start
            self.checkpoint.save(
                Saved({}, self._best, self._best_error, rate, self._batch, done, spent, ended)
            )
        return Trained(before, self._best_error, done, rate, ended)

    def _done_before(self, saved: Saved, before: float) -> Trained:
        self.weights.load(saved.best)
        ended = f"{saved.ended}, in an earlier run that the cache holds"
        return Trained(before, saved.best_error, saved.steps, saved.rate, ended)

    def _rate(self, first: Mapping[str, Array], before: float, saved: Saved | None) -> float:
        """Choose what batches are made of, and the learning rate."""
        self._rng = np.random.default_rng(self.settings.seed)
        self._rounds = [Rounds(self.train, self._rng), Rounds((), self._rng)]
        self._batch = self.settings.batch or (BATCH if self.settings.steps else SMALLEST)
        planned = self.settings.steps or self._fitting(first)
        if not self.settings.batch and planned >= 2 * ENOUGH and self._batch < BATCH:
            self._enlarge(planned)
            planned = self._fitting(first)
        if saved is not None:
            self._batch = saved.batch
        if planned * self._batch >= OFTEN * len(self.train):
            self._rounds[1] = Rounds(self.mixes, self._rng)
        if saved is not None:
            return saved.rate
        return self.settings.rate or self._best_rate(first, planned, before)

    def _enlarge(self, planned: float) -> None:
        """Batches as large as leave time for enough steps: one of twice the samples lasts at most
        twice as long."""
        while self._batch < BATCH and planned >= 2 * ENOUGH:
            self._batch, planned = 2 * self._batch, planned / 2

    def _steps(self, rate: float, done: int, start: float) -> tuple[str, int]:
        saved = self.clock()
        while (share := self._share(done, start)) < 1:
            loss = self._step(self._next(), rate * _schedule(share))
            done += 1
            self._losses.append(loss)
            if not math.isfinite(loss):
                return f"the loss became {loss} in step {done}; the best weights stay", done
            left = max((self.clock() - start) / max(share, 1e-6) * (1 - share), 0)
            self.progress(f"loss {loss:.4g}, {left:.0f} s left", round(100 * share), 100)
            if share >= self._looked + self._apart:
                self._looked = share
                self._look()
                if self._worse >= PATIENCE:
                    return "the samples held out erred more and more", done
            if self.checkpoint is not None and self.clock() - saved >= self.checkpoint.every:
                saved = self.clock()
                self._save(rate, done, saved - start)
        self._look()
        return "the time was up" if not self.settings.steps else "all steps were made", done

    def _share(self, done: int, start: float) -> float:
        if self.settings.steps:
            return done / self.settings.steps
        return (self.clock() - start) / self.settings.seconds

    def _look(self) -> None:
        """See to the samples held out. Steps at a high rate err more than what comes of them as
        it falls, on all samples alike; learning by heart is told by those learnt erring less."""
        start = self.clock()
        error, learnt = self.error(), float(np.mean(self._losses)) if self._losses else math.inf
        self._losses.clear()
        if not self.settings.steps:
            took = (self.clock() - start) / self.settings.seconds
            self._apart = max(1 / CHECKS, took / LOOKING)
        if error < self._best_error:
            self._best, self._best_error = self.weights.state(), error
        if error < self._low[0]:
            self._low, self._worse = (error, learnt), 0
        else:
            self._worse = self._worse + 1 if learnt < self._low[1] else 0

    def _next(self) -> list[int]:
        """The next batch."""
        mixed = self._rounds[1].take(self._batch // 2)
        return self._rounds[0].take(self._batch - len(mixed)) + mixed

    def _step(self, indices: Sequence[int], rate: float) -> float:
        self._optimizer.zero_grad()
        total = 0.0
        for part in self.pool.batch(indices):
            loss = self._loss(part) * part.share
            if loss.requires_grad:
                loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            return total
        torch.nn.utils.clip_grad_norm_(list(self.weights.leaves.values()), CLIP)
        self._optimizer.step(rate)
        return total

    def _loss(self, part: Part) -> Tensor:
        names = [target.name for target, _ in self.targets]
        answers = self.program.run(part.feed, self.weights.given(), names, self.cuts)
        total: Tensor = 0.0
        for target, weight in self.targets:
            found = self.maps.ahead(target.name, answers[target.name])
            wanted = part.wanted[target.name]
            kept, temperature = part.kept.get(target.name), self.settings.temperature
            total = total + weight * loss_of(target, found, wanted, kept, temperature)
        return total

    def error(self) -> float:
        """The loss on the samples held out; infinite where it is no number."""
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(self.held_out), BATCH):
                indices = self.held_out[start : start + BATCH]
                share = len(indices) / len(self.held_out)
                total += share * sum(
                    float(self._loss(part)) * part.share for part in self.pool.batch(indices)
                )
        return total if math.isfinite(total) else math.inf

    def _best_rate(self, first: Mapping[str, Array], planned: float, start: float) -> float:
        """The best of some short trials; a careful one where they would take too long."""
        if not self.settings.steps and LARGEST * planned < FEWEST:
            return CAREFUL
        count = min(max(round(SHARE * planned), FEWEST), MOST)
        return best_rate(lambda rate: self._trial(rate, first, count), start)

    def _fitting(self, first: Mapping[str, Array]) -> float:
        """How many steps the time is enough for, from the quickest of some after the first: others
        may have been held up by what else the machine does."""
        self._trial(CAREFUL, first, 1)
        end, least = self.clock() + TIMED * self.settings.seconds, math.inf
        for _ in range(FEWEST):
            start = self.clock()
            self._step(self._next(), CAREFUL)
            least = min(least, self.clock() - start)
            if self.clock() > end:
                break
        self.weights.load(first)
        return self.settings.seconds / max(least, 1e-6)

    def _trial(self, rate: float, first: Mapping[str, Array], count: int) -> float:
        """The loss on the samples held out after so many steps; the weights are as before."""
        self._optimizer = Optimizer(self.weights.leaves)
        for step in range(count):
            if not math.isfinite(self._step(self._next(), rate * _schedule(step / count))):
                break
        found = self.error()
        self.weights.load(first)
        return found

    def _save(self, rate: float, done: int, spent: float) -> None:
        assert self.checkpoint is not None
        state = {
            "leaves": {n: leaf.detach().cpu() for n, leaf in self.weights.leaves.items()},
            "optimizer": self._optimizer.state(),
            "rng": self._rng.bit_generator.state,
            "rounds": [[int(index) for index in rounds.left] for rounds in self._rounds],
            "looked": self._looked,
            "worse": self._worse,
            "low": self._low,
            "losses": self._losses,
        }
        self.checkpoint.save(
            Saved(state, self._best, self._best_error, rate, self._batch, done, spent)
        )

    def _resume(self, saved: Saved) -> tuple[int, float]:
        """Go on there; the steps and seconds so far."""
        state = saved.state
        self.weights.load(state["leaves"])
        self._optimizer.load(state["optimizer"])
        self._rng.bit_generator.state = state["rng"]
        for rounds, left in zip(self._rounds, state["rounds"], strict=True):
            rounds.left = list(left)
        self._looked, self._worse = state["looked"], state["worse"]
        self._low, self._losses = tuple(state["low"]), list(state["losses"])
        self._best, self._best_error = saved.best, saved.best_error
        return saved.steps, saved.seconds


def _schedule(share: float) -> float:
    if share < WARMUP:
        return (share + 0.1 * WARMUP) / (1.1 * WARMUP)
    return 0.5 * (1 + math.cos(math.pi * (share - WARMUP) / (1 - WARMUP)))
