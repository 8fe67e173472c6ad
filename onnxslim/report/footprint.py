"""Weights and multiply-accumulates of the model after each pass."""

from __future__ import annotations

from dataclasses import dataclass

from onnxslim import ir
from onnxslim.analyses.cost import Cost
from onnxslim.errors import OnnxSlimError
from onnxslim.ir import Model
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Pass, PassResult
from onnxslim.pipeline.instruments import Instrument


@dataclass(frozen=True)
class Footprint:
    """What a model takes."""

    macs: int | None  # of one run of one sample; None where the shapes are unknown
    weight_bytes: int


def footprint(model: Model, analyses: AnalysisManager) -> Footprint:
    """The footprint of a model."""
    try:
        macs = analyses.get(Cost()).total_macs
    except OnnxSlimError:  # shapes need a run, and ONNX Runtime cannot run it
        macs = None
    return Footprint(macs, ir.weight_bytes(model))


class FootprintEach(Instrument):
    """Remembers the footprint after each pass, the one before all passes first."""

    def __init__(self) -> None:
        self.seen: list[Footprint] = []

    def before(self, pass_: Pass, model: Model, ctx: Context) -> None:
        """Measure the original."""
        if not self.seen:
            self.seen.append(footprint(model, ctx.analyses))

    def after(self, pass_: Pass, model: Model, ctx: Context, result: PassResult) -> None:
        """Measure what changed."""
        changed = bool(result.changed)
        self.seen.append(footprint(model, ctx.analyses) if changed else self.seen[-1])
