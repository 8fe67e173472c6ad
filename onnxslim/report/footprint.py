"""Weights and multiply-accumulates of the model after each pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

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
    nodes: Mapping[str, int] = field(default_factory=dict[str, int])  # by operator


def footprint(model: Model, analyses: AnalysisManager | None) -> Footprint:
    """The footprint of a model; without analyses, which may run it, the MACs stay unknown."""
    return Footprint(_macs(analyses), ir.weight_bytes(model), count_nodes(model))


def count_nodes(model: Model) -> dict[str, int]:
    """How many nodes there are of each operator, in all graphs and functions; sorted by name."""
    return dict(sorted(Counter(map(ir.op, ir.nodes(model))).items()))


def _macs(analyses: AnalysisManager | None) -> int | None:
    if analyses is None:
        return None
    try:
        return analyses.get(Cost()).total_macs
    except OnnxSlimError:  # shapes need a run, and ONNX Runtime cannot run it
        return None


class FootprintEach(Instrument):
    """Remembers the footprint after each pass, the one before all passes first.

    `may_run`: whether the model may be run for its shapes, which MACs need.
    """

    def __init__(self, may_run: bool = True) -> None:
        self.seen: list[Footprint] = []
        self._may_run = may_run

    def before(self, pass_: Pass, model: Model, ctx: Context) -> None:
        """Measure the original."""
        if not self.seen:
            self.seen.append(self._footprint(model, ctx))

    def after(self, pass_: Pass, model: Model, ctx: Context, result: PassResult) -> None:
        """Measure what changed."""
        changed = bool(result.changed)
        self.seen.append(self._footprint(model, ctx) if changed else self.seen[-1])

    def rewind(self, kept: int) -> None:
        """Forget what is going to be measured again."""
        del self.seen[kept + 1 :]

    def _footprint(self, model: Model, ctx: Context) -> Footprint:
        return footprint(model, _without_calls(model, ctx) if self._may_run else None)


def _without_calls(model: Model, ctx: Context) -> AnalysisManager:
    """Analyses that see what functions hold."""
    if not model.functions:
        return ctx.analyses
    twin = ir.snapshot(model)
    ir.inline_functions(twin)
    return AnalysisManager(twin, ctx.env)
