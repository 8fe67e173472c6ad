"""Distillation: the model as loaded teaches the student that the passes so far left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from onnxslim.errors import DataError
from onnxslim.ir import Model
from onnxslim.passes.distill.layer import HELD_OUT, refit_layers
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Declined, Pass, PassResult, option

LEAST = 2 * HELD_OUT
"""Calibration samples below which nothing is done."""


@dataclass(frozen=True, kw_only=True)
class Distill(Pass):
    """Weights, biases and scales of the student move so that it answers as the teacher does.

    The teacher is the model as it was loaded; no labels are needed, only calibration samples, of
    which every fifth is held out of the fits. Nodes, names, types and quantization stay.
    """

    name: ClassVar[str] = "distill"
    summary: ClassVar[str] = "teach the compressed model to answer as the original does"

    level: Literal["layer"] = option("layer", "layer by layer in closed form")

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
        return _by_layer(model, ctx)


def _by_layer(model: Model, ctx: Context) -> PassResult:
    done = refit_layers(ctx.original, model, ctx.env)
    if isinstance(done, str):
        return PassResult(declined=(Declined("whole model", done),))
    return PassResult(
        changed=Aspect.WEIGHTS | Aspect.NUMERICS if done.layers else Aspect.NONE,
        stats={
            "level": "layer",
            "layers": len(done.layers),
            "error_before": round(done.before, 6),
            "error_after": round(done.after, 6),
        },
        declined=done.declined,
        layers=done.layers,
    )
