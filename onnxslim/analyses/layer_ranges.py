"""Ranges and channel means of inner tensors, where nothing more is asked for: one run of the
samples in which no tensor leaves ONNX Runtime."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from onnxslim import ir
from onnxslim.analyses.collect import groups, parts_of, stackable, stacked
from onnxslim.analyses.layer_stats import LayerStats, channels_around, main_graph_values
from onnxslim.analyses.observe import padding_mask
from onnxslim.analyses.plan import BUDGET, STACK
from onnxslim.analyses.reductions import add_reductions
from onnxslim.analyses.tensor_stats import TensorRange, merged_range
from onnxslim.errors import DataError, RuntimeUnavailable
from onnxslim.ir import Array, Model
from onnxslim.pipeline.analysis import Analysis, AnalysisManager
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import Session, open_session

_LEAD = 2
"""Samples that run alone, and show how large the tensors are."""

_MANY = 64
"""Samples from which on it pays to find out whether they can be stacked."""

Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Ranges:
    """What was seen. A tensor is in `missing`, with the reason, instead of in `tensors`."""

    samples: int
    tensors: Mapping[str, TensorRange]
    missing: Mapping[str, str]
    outputs: Mapping[int, Outputs] = field(default_factory=dict[int, Outputs])
    seconds: float = 0.0  # that one sample took


@dataclass(frozen=True)
class LayerRanges(Analysis[Ranges]):
    """Extremes and means, per tensor and per channel, of float tensors of the main graph.

    What cannot be reduced inside of ONNX Runtime (types but float32, unknown ranks, NaN, texts
    with padding) comes from `LayerStats`. `outputs`: from how many samples, evenly spread, the
    outputs of the graph are kept; none where no tensor could be reduced.
    Memory: the activations of the samples of one call, which stay within `budget`.

    Raises:
        DataError: there are no calibration samples.
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """

    tensors: tuple[str, ...] = ()
    outputs: int = 0
    budget: int = BUDGET

    def compute(self, model: Model, analyses: AnalysisManager) -> Ranges:
        """Run the samples once, and again for what is left."""
        env = analyses.env
        if env.calib is None or len(env.calib) == 0:
            raise DataError("ranges of layers need calibration samples; give them with --calib")
        found = Ranges(len(env.calib), {}, {})
        if padding_mask(env.calib[0]) is None:
            with suppress(RuntimeUnavailable):  # LayerStats tells if it is the model or the taps
                found = _Collection(self, model, env).run()
        rest = tuple(name for name in self.tensors if name not in found.tensors)
        if not rest:
            return found
        more = analyses.get(LayerStats(tensors=rest))
        tensors = {**found.tensors, **more.tensors}
        return Ranges(found.samples, tensors, more.missing, found.outputs, found.seconds)


def evenly(count: int, most: int) -> list[int]:
    """At most so many of the numbers below `count`, evenly spread, with the first and the last."""
    return [int(i) for i in np.linspace(0, count - 1, min(most, count))]


def _is_plain(outputs: Outputs) -> bool:
    """Whether all are arrays of numbers, and no sequences or texts."""
    return all(getattr(x, "dtype", np.dtype(object)).kind in "fiub" for x in outputs.values())


class _Collection:
    """One request while it is being answered."""

    def __init__(self, request: LayerRanges, model: Model, env: Environment) -> None:
        assert env.calib is not None
        self.samples, self.env, self.budget = env.calib, env, request.budget
        self.ends = [str(value.name) for value in model.graph.outputs]
        self.kept = frozenset(evenly(len(self.samples), request.outputs))
        twin = ir.snapshot(model)
        values = main_graph_values(twin)
        wanted = [values[n] for n in dict.fromkeys(request.tensors) if n in values]
        self.taps = add_reductions(
            twin, {v: channels_around(v) for v in wanted if ir.constant(v) is None}
        )
        self.names = list(dict.fromkeys(name for tap in self.taps for name in tap.outputs))
        self.twin = twin
        self.found: dict[str, TensorRange] = {}
        self.unusable: set[str] = set()  # what was not finite once: LayerStats can tell why
        self.outputs: dict[int, Outputs] = {}

    def run(self) -> Ranges:
        """Show every sample to every tap."""
        count = len(self.samples)
        if not self.taps:
            return Ranges(count, {}, {})
        session = open_session(self.twin, threads=self.env.threads)
        start = time.perf_counter()
        lead = min(_LEAD, count)
        for index in range(lead):
            self._take(session, index, [self.samples[index]])
        stack = self._stack(session) if count >= _MANY else 1
        for first, feeds in groups(self.samples.take(range(lead, count)), stack):
            self._take(session, lead + first, feeds)
        seconds = (time.perf_counter() - start) / count
        known = {name: seen for name, seen in self.found.items() if name not in self.unusable}
        return Ranges(count, known, {}, self.outputs, seconds)

    def _stack(self, session: Session) -> int:
        """How many samples go through the model in one call."""
        numbers = sum(seen.count for seen in self.found.values()) // _LEAD
        stack = max(1, min(STACK, self.budget // max(4 * numbers, 1)))
        arrays = [name for tap in self.taps for name in tap.outputs if name != tap.shape]
        ends = self.ends if self.kept else []
        plain = all(_is_plain(outputs) for outputs in self.outputs.values())
        fits = stack > 1 and plain and stackable(session, self.samples, [*arrays, *ends])
        return stack if fits else 1

    def _take(self, session: Session, first: int, feeds: Sequence[Feed]) -> None:
        count = len(feeds)
        chosen = [index for index in range(first, first + count) if index in self.kept]
        wanted = dict.fromkeys([*self.names, *(self.ends if chosen else ())])
        values = session.run(stacked(feeds), list(wanted))
        for tap in self.taps:
            for part in tap.range(values, count):
                self._merge(tap.tensor, part)
        for index in chosen:
            self.outputs[index] = {
                name: parts_of(values[name], count)[index - first] for name in self.ends
            }
        self.env.progress("ranges", first + count, len(self.samples))

    def _merge(self, name: str, part: TensorRange | None) -> None:
        if part is None:
            self.unusable.add(name)
        else:
            before = self.found.get(name)
            self.found[name] = part if before is None else merged_range(before, part)
