"""Gradient descent on a student until the time is up: Adam, warmup and a cosine to zero."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.distill.graph.api import Tensor, torch
from onnxslim.passes.distill.graph.checkpoint import Checkpoint
from onnxslim.passes.distill.graph.data import Part, Pool
from onnxslim.passes.distill.graph.loss import Target, loss_of
from onnxslim.passes.distill.graph.program import Program
from onnxslim.passes.distill.graph.weights import Weights
from onnxslim.pipeline.base import Progress

WARMUP = 0.05  # of the time
CLIP = 1.0  # norm of the gradient of all leaves together
CHECKS = 20  # looks at the samples held out
PATIENCE = 10  # of them without a better one end the training
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Learning rates; from the third of them on, those above are tried as long as it gets better, or
else those below, each for a few steps."""
_TRIAL = 0.03  # of the time for each of them, at most
_TRIAL_STEPS = 30


@dataclass(frozen=True)
class Settings:
    """How long and how: `steps` overrules `seconds` where it is not 0; `rate` 0 chooses one."""

    seconds: float
    steps: int = 0
    batch: int = 64
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
    """One training. `targets` with their weights; `cuts` are values that no gradient passes."""

    program: Program
    weights: Weights
    pool: Pool
    targets: Sequence[tuple[Target, float]]
    train: Sequence[int]
    held_out: Sequence[int]
    settings: Settings
    progress: Progress
    checkpoint: Checkpoint | None = None
    cuts: frozenset[str] = frozenset()
    clock: Callable[[], float] = time.monotonic

    def run(self) -> Trained:
        """Train; the weights are the best on the samples held out, which may be the first."""
        self._rng = np.random.default_rng(self.settings.seed)
        self._queue: list[int] = []
        start = self.clock()
        first = self.weights.state()
        before = self.error()
        resumed = self.checkpoint.load() if self.checkpoint is not None else None
        rate = self.settings.rate or (resumed.rate if resumed else self._best_rate(first))
        self._best, self._best_error = first, before
        self._optimizer = torch.optim.Adam(list(self.weights.leaves.values()), lr=rate)
        self._looked, self._worse = 0.0, 0
        done, spent = 0, 0.0
        if resumed is not None:
            self._resume(resumed.state)
            done, spent = resumed.steps, resumed.seconds
            self._best, self._best_error = resumed.best, resumed.best_error
        ended, done = self._steps(rate, done, start - spent)
        self.weights.load(self._best)
        if self.checkpoint is not None:
            self.checkpoint.remove()
        return Trained(before, self._best_error, done, rate, ended)

    def _steps(self, rate: float, done: int, start: float) -> tuple[str, int]:
        saved = self.clock()
        while (share := self._share(done, start)) < 1:
            for group in self._optimizer.param_groups:
                group["lr"] = rate * _schedule(share)
            loss = self._step(self._next())
            done += 1
            if not math.isfinite(loss):
                return f"the loss became {loss} in step {done}; the best weights stay", done
            left = max((self.clock() - start) / max(share, 1e-6) * (1 - share), 0)
            self.progress(f"loss {loss:.4g}, {left:.0f} s left", round(100 * share), 100)
            if share >= self._looked + 1 / CHECKS:
                self._looked = share
                self._look()
                if self._worse >= PATIENCE:
                    return "no better for long", done
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
        error = self.error()
        self._worse += 1
        if error < self._best_error:
            self._best, self._best_error, self._worse = self.weights.state(), error, 0

    def _next(self) -> list[int]:
        """The next batch: all samples in turn, shuffled anew each time."""
        size = min(self.settings.batch, len(self.train))
        while len(self._queue) < size:
            self._queue += [self.train[i] for i in self._rng.permutation(len(self.train))]
        taken, self._queue = self._queue[:size], self._queue[size:]
        return taken

    def _step(self, indices: Sequence[int]) -> float:
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in self.pool.batch(indices):
            loss = self._loss(part) * part.share
            if loss.requires_grad:
                loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            return total
        torch.nn.utils.clip_grad_norm_(list(self.weights.leaves.values()), CLIP)
        self._optimizer.step()
        return total

    def _loss(self, part: Part) -> Tensor:
        names = [target.name for target, _ in self.targets]
        answers = self.program.run(part.feed, self.weights.given(), names, self.cuts)
        total: Tensor = 0.0
        for target, weight in self.targets:
            found, wanted = answers[target.name], part.wanted[target.name]
            kept, temperature = part.kept.get(target.name), self.settings.temperature
            total = total + weight * loss_of(target, found, wanted, kept, temperature)
        return total

    def error(self) -> float:
        """The loss on the samples held out; infinite where it is no number."""
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(self.held_out), self.settings.batch):
                indices = self.held_out[start : start + self.settings.batch]
                share = len(indices) / len(self.held_out)
                total += share * sum(
                    float(self._loss(part)) * part.share for part in self.pool.batch(indices)
                )
        return total if math.isfinite(total) else math.inf

    def _best_rate(self, first: Mapping[str, Array]) -> float:
        """The rate after a few steps of which, falling to zero, the samples held out err least."""
        errors: dict[float, float] = {}

        def error(rate: float) -> float:
            self._trial(rate)
            errors[rate] = self.error()
            self.weights.load(first)
            return errors[rate]

        at = 2
        error(RATES[at])
        while at + 1 < len(RATES) and error(RATES[at + 1]) < errors[RATES[at]]:
            at += 1
        while at > 0 and RATES[at - 1] not in errors and error(RATES[at - 1]) < errors[RATES[at]]:
            at -= 1
        return RATES[at]

    def _trial(self, rate: float) -> None:
        self._optimizer = torch.optim.Adam(list(self.weights.leaves.values()), lr=rate)
        count = min(_TRIAL_STEPS, self.settings.steps or _TRIAL_STEPS)
        limit, start = self.settings.seconds * _TRIAL, self.clock()
        for step in range(count):
            share = step / count
            if not self.settings.steps:
                share = max(share, (self.clock() - start) / limit)
            if share >= 1:
                break
            for group in self._optimizer.param_groups:
                group["lr"] = rate * (1 - share)
            if not math.isfinite(self._step(self._next())):
                break

    def _save(self, rate: float, done: int, spent: float) -> None:
        assert self.checkpoint is not None
        state = {
            "leaves": {n: leaf.detach().cpu() for n, leaf in self.weights.leaves.items()},
            "optimizer": self._optimizer.state_dict(),
            "rng": self._rng.bit_generator.state,
            "queue": [int(index) for index in self._queue],
            "looked": self._looked,
            "worse": self._worse,
        }
        self.checkpoint.save(state, self._best, self._best_error, rate, done, spent)

    def _resume(self, state: dict[str, Any]) -> None:
        self.weights.load(state["leaves"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._rng.bit_generator.state = state["rng"]
        self._queue = list(state["queue"])
        self._looked, self._worse = state["looked"], state["worse"]


def _schedule(share: float) -> float:
    if share < WARMUP:
        return (share + 0.1 * WARMUP) / (1.1 * WARMUP)
    return 0.5 * (1 + math.cos(math.pi * (share - WARMUP) / (1 - WARMUP)))
