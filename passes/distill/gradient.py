"""The levels that need gradients: the student run by torch, which is an extra."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from time import monotonic
from typing import Any, Literal

from onnxslim import ir
from onnxslim.analyses.distance import errors_to, outputs_of
from onnxslim.analyses.held_out import runs_out, split
from onnxslim.analyses.paired import errs_less
from onnxslim.analyses.seen import Shapes, observed_shapes
from onnxslim.analyses.stats_store import request_key
from onnxslim.ir import Array, Model
from onnxslim.passes.distill.mixing import Mixed, mixable
from onnxslim.pipeline.base import Context, Declined, Environment

MOST_HELD_OUT = 256

FITTING = 0.1
"""Of the time, at most, for the maps to the teacher's values between."""

MIXES = 16384
"""Samples made of two others; each costs the teacher's answer once, when its turn has come."""

INSTALL = "pip install 'onnxslim-compiler[distill]'"


def missing() -> str:
    """Why there are no gradients; empty where torch is installed."""
    if find_spec("torch") is None:
        return f"torch is not installed: {INSTALL}"
    try:
        import_module("torch")
    except (ImportError, OSError) as error:
        return f"torch cannot be imported ({error}): {INSTALL}"
    return ""


@dataclass(frozen=True)
class Schedule:
    """What the user asked for."""

    level: Literal["block", "model"]
    minutes: float
    steps: int
    batch: int
    rate: float
    temperature: float
    hidden: float  # weight of what lies between, beside 1 for the outputs


@dataclass(frozen=True)
class Learned:
    """What the training did; `changed` is False where the student is as it was."""

    changed: bool
    stats: dict[str, int | float | str]
    declined: tuple[Declined, ...]
    notes: tuple[str, ...]


def learn(
    teacher: Model, student: Model, ctx: Context, asked: Schedule, spent: float = 0.0
) -> Learned | str:
    """Train the student in place; a reason where it cannot be differentiated.

    Kept only where the outputs of ONNX Runtime on the samples held out err less beyond chance.
    `spent` seconds of what is asked for are over. Memory: the activations of a batch (2 GB at most)
    twice, the weights four times, and the teacher's answers (1 GB at most).

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run one of the models.
    """
    with _threads(ctx.env.threads):
        return _learn(teacher, student, ctx, asked, spent)


def _learn(
    teacher: Model, student: Model, ctx: Context, asked: Schedule, spent: float
) -> Learned | str:
    from onnxslim.passes.distill.graph.data import outputs_in_common
    from onnxslim.passes.distill.graph.probe import convert, reasons
    from onnxslim.passes.distill.graph.weights import Weights, find

    env, names = ctx.env, outputs_in_common(teacher, student)
    assert env.calib is not None
    if len(names) < len(teacher.graph.outputs):
        own = ", ".join(str(v.name) for v in teacher.graph.outputs)
        return f"the student has other outputs than the teacher, which has {own}"
    program = convert(student, env.calib[0], env.threads, _device())
    if isinstance(program, str):
        return program
    found = find(student, program)
    if not found.count:
        return "no weight can be trained: " + (
            "; ".join(f"{d.node}: {d.reason}" for d in reasons(program)[:3]) or "there is none"
        )
    weights = Weights(student, found, program.dtype, program.device)
    program.fold(weights.given().keys())
    before = ir.snapshot(student)
    run = _Run(teacher, student, env, asked, spent)
    trained = run.train(program, weights, names)
    weights.write(student)
    was, now = run.errors(before, student)
    changed = trained.after < trained.before and (was is None or run.less(now, was))
    if not changed:
        ir.restore(student, before)
    stats: dict[str, int | float | str] = {
        "level": asked.level,
        "trained": found.count,
        "steps": trained.steps,
        "rate": trained.rate,
        "loss_before": _short(trained.before),
        "loss_after": _short(trained.after),
        "held_out": len(run.held_out),
    }
    if was is not None and now is not None:
        errors = _short(was.mean()), _short(now.mean())
        stats |= {"error_before": errors[0], "error_after": errors[int(changed)]}
    notes = [f"Training ended: {trained.ended}."]
    if not changed:
        notes.append(
            f"The student stayed as it was: the {len(run.held_out)} samples held out would not err "
            "less beyond chance."
        )
    return Learned(changed, stats, tuple(reasons(program)), tuple(notes))


@dataclass
class _Run:
    teacher: Model
    student: Model
    env: Environment
    asked: Schedule
    spent: float

    def __post_init__(self) -> None:
        assert self.env.calib is not None
        self.learnt, self.held_out = split(len(self.env.calib), most_out=MOST_HELD_OUT)

    def errors(self, *models: Model) -> list[Array | None]:
        """How far the outputs of each are from the teacher's, [samples held out]."""
        assert self.env.calib is not None
        judges = self.env.calib.take(self.held_out)
        wanted = outputs_of(self.teacher, judges, self.env.threads)
        return [errors_to(wanted, model, judges, self.env.threads) for model in models]

    def less(self, after: Array | None, before: Array) -> bool:
        """Whether these errors are less beyond chance."""
        assert self.env.calib is not None
        return after is not None and errs_less(after, before, runs_out(len(self.env.calib)))

    def train(self, program: Any, weights: Any, names: list[str]) -> Any:
        """Train the weights until the time is up."""
        from onnxslim.passes.distill.graph.blocks import bottlenecks
        from onnxslim.passes.distill.graph.data import Pool, fitting
        from onnxslim.passes.distill.graph.hints import FITTED, by_feature, fit
        from onnxslim.passes.distill.graph.loss import targets_of
        from onnxslim.passes.distill.graph.train import BATCH, Settings, Trainer

        assert self.env.calib is not None
        start, whole = monotonic(), 60 * self.asked.minutes - self.spent
        all_through = bottlenecks(program, weights.given().keys())
        hints = self._hints(all_through) if self.asked.level == "model" else []
        cuts = self._matched(all_through) if self.asked.level == "block" else []
        between = cuts or [hint.name for hint in hints]
        goals = [*names, *between]
        calib, count = self.env.calib, len(self.env.calib)
        if mixable(calib):
            calib = Mixed(calib, self.learnt, MIXES, self.env.seed)
        pool = Pool(calib, self.teacher, self.student, program, goals, self.env.threads)
        pool.most = fitting(self.student, self.env.calib[0], self.env.threads)
        size = self.asked.batch or BATCH
        first = pool.answers(self.learnt[:size])
        share = (1.0 if cuts else self.asked.hidden) / max(len(between), 1)
        some = self.learnt[:FITTED]
        batches = [some[at : at + size] for at in range(0, len(some), size)]
        until = math.inf if self.asked.steps else start + FITTING * whole
        maps = fit(hints, pool, weights, batches, lambda: monotonic() > until)
        given = targets_of(first, [*names, *cuts])
        targets = [(t, 1.0 if t.name in names else share) for t in given]
        targets += [(t, share) for t in by_feature(maps, first)]
        settings = Settings(
            seconds=max(whole - (monotonic() - start), 1.0),
            steps=self.asked.steps,
            batch=self.asked.batch,
            rate=self.asked.rate,
            temperature=self.asked.temperature,
            seed=self.env.seed,
        )
        trainer = Trainer(
            program, weights, pool, targets, self.learnt, range(count, len(calib)),
            self.held_out, settings, self.env.progress, self._checkpoint(), frozenset(cuts), maps,
        )  # fmt: skip
        return trainer.run()

    def _matched(self, names: list[str]) -> list[str]:
        """Those that the teacher has in the same shape."""
        theirs, ours = self._shapes()
        return [name for name in names if name in theirs and theirs[name] == ours.get(name)]

    def _hints(self, names: list[str]) -> list[Any]:
        from onnxslim.passes.distill.graph.hints import places

        return places(names, *self._shapes(), len(self.learnt)) if self.asked.hidden else []

    def _shapes(self) -> tuple[Shapes, Shapes]:
        """Of one sample, in the teacher and in the student."""
        assert self.env.calib is not None
        theirs, ours = (
            observed_shapes(model, self.env.calib[0], self.env.threads)
            for model in (self.teacher, self.student)
        )
        return theirs, ours

    def _checkpoint(self) -> Any:
        from onnxslim.passes.distill.graph.checkpoint import Checkpoint

        if self.env.cache is None:
            return None
        assert self.env.calib is not None
        options = repr((ir.checksum(self.teacher), self.asked, self.env.seed))
        key = request_key(ir.checksum(self.student), self.env.calib, options)
        return Checkpoint(self.env.cache / "distill" / f"{key}.pt")


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _device() -> str:
    torch: Any = import_module("torch")
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """torch with so many threads; 0 leaves their number to it."""
    torch: Any = import_module("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
