"""Distillation: the model as loaded teaches the student that the passes so far left."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import ClassVar, Literal

from onnxslim.errors import DataError
from onnxslim.ir import Model
from onnxslim.passes.distill.gradient import Schedule, learn, missing
from onnxslim.passes.distill.layer import TIME_UP, Refitted, has_codes, refit_layers
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Pass, PassResult, option

LEAST = 10
"""Calibration samples below which nothing is done."""

FEW = 128
"""Samples below which `auto` does not train: so few are learnt by heart."""

FIRST = 0.25
"""Of the time, at most, for the closed form before a training."""


@dataclass(frozen=True, kw_only=True)
class Distill(Pass):
    """Weights, biases and scales of the student move so that it answers as the teacher does.

    The teacher is the model as it was loaded; no labels are needed, only calibration samples, of
    which some are held out: what does not lower the error on them beyond chance is undone. Nodes,
    names, types and the placement of quantization stay.

    layer: each layer in closed form, in the order of the model (`layer.py`)
    block: by gradient, each stretch between values that all goes through (`graph/blocks.py`)
    model: by gradient, end to end on the outputs and on two values between (`gradient.py`); needs
        torch, as block does
    auto: model where torch is installed and samples are many, else layer

    Weights in codes are fitted in closed form before they are trained.
    """

    name: ClassVar[str] = "distill"
    summary: ClassVar[str] = "teach the compressed model to answer as the original does"

    level: Literal["auto", "layer", "block", "model"] = option(
        "auto", "in closed form layer by layer, or trained by blocks or end to end (needs torch)"
    )
    minutes: float = option(5.0, "time to fit or to train", "more than 0")
    steps: int = option(0, "steps instead of minutes: the same result in each run", "0 or more")
    batch: int = option(0, "samples per step; 0 takes 64, in little time fewer", "0 or more")
    rate: float = option(0.0, "learning rate; 0 tries some", "0 or more")
    temperature: float = option(1.0, "of class scores in the loss", "more than 0")
    hidden: float = option(
        0.6, "level=model: weight of two values between, beside 1 of the outputs", "0 or more",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check ranges."""
        for key, least in (("steps", 0), ("batch", 0), ("rate", 0), ("hidden", 0)):
            value = getattr(self, key)
            if not value >= least:
                raise ValueError(f"{key}={value:g} given, expected {least} or more")
        for key in ("minutes", "temperature"):
            value = getattr(self, key)
            if not value > 0:
                raise ValueError(f"{key}={value:g} given, expected more than 0")

    def prepare(self, ctx: Context) -> None:
        """Refuse a run without samples to learn from.

        Raises:
            DataError: there are no calibration samples, or too few.
        """
        count = 0 if ctx.env.calib is None else len(ctx.env.calib)
        if count < LEAST:
            raise DataError(
                f"distill: {count or 'no'} calibration samples given, expected {LEAST} or more "
                "without labels, better thousands; give them with --calib, or leave distill out"
            )

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Teach in place.

        Raises:
            DataError: there are too few calibration samples.
            RuntimeUnavailable: ONNX Runtime cannot run one of the models.
        """
        self.prepare(ctx)
        level, why = self._level(ctx)
        if level == "layer":
            return self._by_layer(model, ctx, why)
        asked = Schedule(
            level, self.minutes, self.steps, self.batch, self.rate, self.temperature, self.hidden
        )
        start = time.monotonic()
        fitted = self._fitted(model, ctx)
        done = learn(ctx.original, model, ctx, asked, time.monotonic() - start)
        if isinstance(done, str):
            note = f"distill{{level={level}}} was not done: {done}"
            return self._by_layer(model, ctx, note, fitted)
        layers = fitted.layers if fitted is not None else ()
        stats = {"layers": len(layers), **done.stats} if layers else done.stats
        return PassResult(
            changed=Aspect.WEIGHTS | Aspect.NUMERICS if done.changed or layers else Aspect.NONE,
            stats=stats,
            declined=done.declined,
            layers=layers,
            notes=(*((why,) if why else ()), *done.notes),
        )

    def _fitted(self, model: Model, ctx: Context) -> Refitted | None:
        """What the closed form did first; other students come from passes that fit layers so."""
        if not has_codes(model):
            return None
        done = refit_layers(ctx.original, model, ctx.env, FIRST * self._seconds())
        return None if isinstance(done, str) else done

    def _seconds(self) -> float:
        return math.inf if self.steps else 60 * self.minutes

    def _level(self, ctx: Context) -> tuple[Literal["layer", "block", "model"], str]:
        """What is done, and why it is not what could be wished for."""
        if self.level == "layer":
            return "layer", ""
        wanted: Literal["block", "model"] = "model" if self.level == "auto" else self.level
        if reason := missing():
            what = "training" if self.level == "auto" else f"distill{{level={wanted}}}"
            return "layer", f"{what} was not done: {reason}"
        assert ctx.env.calib is not None
        count = len(ctx.env.calib)
        if self.level == "auto" and count < FEW:
            note = f"distill saw {count} samples, too few to train on; {FEW} or more allow it"
            return "layer", note
        note = f"distill trained on {count} samples, which are few" if count < FEW else ""
        return wanted, note

    def _by_layer(
        self, model: Model, ctx: Context, note: str, fitted: Refitted | None = None
    ) -> PassResult:
        notes: tuple[str, ...] = (f"{note}; level=layer was done instead.",) if note else ()
        done = fitted or refit_layers(ctx.original, model, ctx.env, self._seconds())
        if isinstance(done, str):
            return PassResult(declined=(Declined("whole model", done),), notes=notes)
        if left := sum(declined.reason == TIME_UP for declined in done.declined):
            notes += (f"The time was up: {left} layers are as they were; minutes= gives more.",)
        return PassResult(
            changed=Aspect.WEIGHTS | Aspect.NUMERICS if done.layers else Aspect.NONE,
            stats={
                "level": "layer",
                "layers": len(done.layers),
                "held_out": done.held_out,
                "error_before": float(f"{done.before:.4g}"),
                "error_after": float(f"{done.after:.4g}"),
            },
            declined=done.declined,
            layers=done.layers,
            notes=notes,
        )
