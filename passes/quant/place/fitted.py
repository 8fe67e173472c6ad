"""Equal transformations for which samples must say that they are equal, kept where less is lost.

Constants of channels go into the bias behind (`absorb`), channels with a Clip behind are scaled
(`equalize`). Each is made for the samples that are fitted to, and judged on those held out: the
outputs in int8 with ranges as they were seen, beside those of the float model as it was. So what
does not hold on other samples counts as an error, like that of rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from math import inf

from onnxslim import ir
from onnxslim.analyses.held_out import split
from onnxslim.analyses.layer_ranges import LayerRanges
from onnxslim.analyses.layer_stats import LayerStats
from onnxslim.ir import Editor, Model
from onnxslim.ir.state import assign
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.judge import Judge
from onnxslim.passes.quant.choose.search import MARGIN_DB
from onnxslim.passes.quant.choose.trial import attempt
from onnxslim.passes.quant.know.facts import Seen as Facts
from onnxslim.passes.quant.prepare.absorb import absorb
from onnxslim.passes.quant.prepare.equalize import equalize
from onnxslim.passes.quant.prepare.neighbours import Wanted, pairs
from onnxslim.passes.quant.prepare.seen import look
from onnxslim.passes.quant.rewrite.apply import node_id
from onnxslim.passes.quant.rewrite.plan import tensors_to_see
from onnxslim.passes.quant.rewrite.regions import find_regions
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Environment

MOST, MOST_OUT = 256, 16
"""Samples that are looked at, and those of them that are held out."""

SLACKS = (0.0, 0.5)
"""By how much channels are taken to go beyond what was seen, in turn (`seen.highest`)."""


@dataclass(frozen=True)
class Fitted:
    """Layers that were scaled, channels whose constants were moved, tensors that were shifted."""

    equalized: int = 0
    absorbed: int = 0
    shifted: int = 0


def fit_channels(model: Model, env: Environment, choices: Choices, wanted: Wanted) -> Fitted:
    """Transform the `wanted` pairs of a prepared float model in place, as far as its outputs with
    these choices gain by it.

    Nothing where there are too few samples to hold some out. Costs one run of the samples, and one
    and a trial for the model itself and for each of five changes that changes something. Raises
    RuntimeUnavailable.
    """
    found = [pair for pair in pairs(model, bounded=True) if wanted(pair)]
    fit, out = split(len(env.calib) if env.calib else 0, MOST, MOST_OUT)
    if env.calib is None or not found or not out:
        return Fitted()
    own = replace(env, calib=env.calib.take(fit))
    seen = look(model, found, own)
    fitting = _Fitting(model, own, Judge(model, env.calib.take(out), env), choices)
    moving = [partial(absorb, seen=seen, slack=slack, wanted=wanted) for slack in (None, *SLACKS)]
    absorbed = fitting.keep(moving)
    scaling = [
        partial(equalize, bits=choices.bits, wanted=wanted, seen=seen, slack=slack)
        for slack in SLACKS
        if any(pair.bound < inf for pair in found)
    ]
    equalized = fitting.keep(scaling)
    return Fitted(equalized, absorbed)


Change = Callable[[Editor], int]


class _Fitting:
    """A model, and how good it is in int8."""

    def __init__(self, model: Model, env: Environment, judge: Judge, choices: Choices) -> None:
        self.model, self.env, self.judge, self.choices = model, env, judge, choices
        self.db: float | None = None

    def keep(self, changes: Iterable[Change]) -> int:
        """Make the best of some changes if the outputs gain by it; returns how much it changed."""
        start, best, kept = self.model, self.model, 0
        for change in changes:
            twin = ir.snapshot(start)
            count = change(Editor(twin))
            if count and self._gains(twin):
                best, kept = twin, count
        if kept:
            assign(self.model, best)
        return kept

    def _gains(self, twin: Model) -> bool:
        """Whether a changed model is better than the best so far, and it is that now."""
        self.db = self._score(self.model) if self.db is None else self.db
        db = self._score(twin)
        better = db > self.db + MARGIN_DB
        self.db = db if better else self.db
        return better

    def _score(self, model: Model) -> float:
        """Of the outputs in dB, with the ranges of the samples that are fitted to."""
        excluded = {node for node in model.graph if node_id(node) in self.choices.excluded}
        regions = find_regions(model, self.env.target, excluded)
        names = tuple(dict.fromkeys(str(value.name) for value in tensors_to_see(regions)))
        known = AnalysisManager(model, self.env)
        spans = known.get(LayerRanges(tensors=names))
        facts = Facts(spans, lambda: known.get(LayerStats(tensors=names)))
        return self.judge.sqnr_db(attempt(model, self.env, facts, self.choices).opened.session)
