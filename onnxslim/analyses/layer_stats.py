"""What the calibration samples look like inside the model: collected once, read by every pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from onnxslim import ir
from onnxslim.analyses.builder import MomentsBuilder
from onnxslim.analyses.collect import Stream, watch
from onnxslim.analyses.columns import Tap, Window
from onnxslim.analyses.moments import Moments, output_error
from onnxslim.analyses.nonfinite import first_nonfinite
from onnxslim.analyses.observe import Observer, Sampling, Unusable
from onnxslim.analyses.plan import BUDGET, Watch, plan, sum_bytes
from onnxslim.analyses.seen import observed_shapes
from onnxslim.analyses.spill import Spill
from onnxslim.analyses.stats_store import (
    MomentStore,
    file_of,
    read_tensor,
    request_key,
    write_tensor,
)
from onnxslim.analyses.tensor_stats import TensorStats
from onnxslim.errors import DataError
from onnxslim.ir import Model, Value
from onnxslim.pipeline.analysis import Analysis, AnalysisManager
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.blas import side_by_side

__all__ = ["LayerStats", "Moments", "Statistics", "Tap", "TensorStats", "Window", "output_error"]


@dataclass(frozen=True)
class Statistics:
    """What was collected. A tensor is in `missing`, with the reason, instead of elsewhere."""

    samples: int
    tensors: Mapping[str, TensorStats]
    moments: Mapping[Tap, Moments]
    missing: Mapping[str, str]

    def merge(self, other: Statistics) -> Statistics:
        """Those of both sets of samples, for the same model and request."""
        missing = {**other.missing, **self.missing}
        tensors = {
            name: stats.merge(other.tensors[name])
            for name, stats in self.tensors.items()
            if name in other.tensors and name not in missing
        }
        moments = {
            tap: moments.merge(other.moments[tap])
            for tap, moments in self.moments.items()
            if tap in other.moments and tap.tensor not in missing
        }
        return Statistics(self.samples + other.samples, tensors, moments, missing)


@dataclass(frozen=True)
class LayerStats(Analysis[Statistics]):
    """Statistics of float tensors of the main graph over all calibration samples.

    `tensors`: range, mean, 2048-bin histogram and channel statistics, over all values. Channels
    lie on axis 1 where a convolution or another channels-first operator touches the tensor, on the
    last axis where a matrix product does; elsewhere on axis 1 of four or more dimensions, else on
    the last.
    `taps`: mean and second moment of the rows that linear layers read: at most `positions` of each
    image (or text) and about `per_feature` times d in total, drawn with the seed of the run; exact
    where there are fewer. `longest`: rows without a window that are more than so many times as long
    as the others are shortened to that (`shorten`).
    Rows of texts that the padding mask leaves out are skipped.

    Samples stream, in any shapes; tensors are watched in batches that fit `BUDGET`. With a cache
    folder every finished batch is kept there, under a hash of model, samples and request.
    Where the sums of all taps do not fit `budget` they lie in a temporary file and so do the
    moments: the samples are run once, not once for as many taps as have room.

    Raises:
        DataError: there are no calibration samples.
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """

    tensors: tuple[str, ...] = ()
    taps: tuple[Tap, ...] = ()
    positions: int = 256
    per_feature: int = 16
    longest: float | None = None
    budget: int = BUDGET

    def compute(self, model: Model, analyses: AnalysisManager) -> Statistics:
        """Run the samples as often as the budget needs."""
        env = analyses.env
        if env.calib is None or len(env.calib) == 0:
            raise DataError("statistics of layers need calibration samples; give them with --calib")
        return _Collection(self, model, env).run()


class _Collection:
    """One request while it is being answered."""

    def __init__(self, request: LayerStats, model: Model, env: Environment) -> None:
        assert env.calib is not None
        self.request, self.model, self.env, self.samples = request, model, env, env.calib
        self.sampling = Sampling(request.positions, request.per_feature, env.seed, request.longest)
        self.folder, self.key = None, ""
        if env.cache is not None:
            self.folder = env.cache / "layer_stats"
            self.key = request_key(ir.checksum(model), env.calib, repr(self.sampling))
        self.values = main_graph_values(model)
        self.tensors: dict[str, TensorStats] = {}
        self.moments = MomentStore(self.folder, self.key)
        self.missing: dict[str, str] = {}
        self.bad: dict[str, Unusable] = {}
        self.spill: Spill | None = None

    def run(self) -> Statistics:
        """Collect what is not known yet."""
        if watches := self._open_watches():
            self._collect(watches)
        self._blame()
        return Statistics(len(self.samples), self.tensors, self.moments, self.missing)

    def _open_watches(self) -> list[Watch]:
        """What is still to be collected, in the order of the graph."""
        wanted: dict[str, Watch] = {}
        for name in self.request.tensors:
            if not self._refused(name) and not self._cached(name):
                wanted[name] = Watch(name, stats=True)
        for tap in dict.fromkeys(self.request.taps):
            if not self._refused(tap.tensor) and not self.moments.find(tap):
                have = wanted.get(tap.tensor, Watch(tap.tensor, stats=False))
                wanted[tap.tensor] = replace(have, taps=(*have.taps, tap))
        order = {name: i for i, name in enumerate(self.values)}
        return sorted(wanted.values(), key=lambda w: order[w.tensor])

    def _refused(self, name: str) -> bool:
        value = self.values.get(name)
        if value is None:
            self.missing[name] = _why_absent(self.model, name)
        elif ir.constant(value) is not None:
            self.missing[name] = "it is a constant"
        return name in self.missing

    def _cached(self, name: str) -> bool:
        if self.folder is None:
            return False
        found = read_tensor(file_of(self.folder, self.key, name))
        if found is not None:
            self.tensors[name] = found
        return found is not None

    def _collect(self, watches: list[Watch]) -> None:
        shapes = dict(observed_shapes(self.model, self.samples[0], self.env.threads))
        known = [w for w in watches if w.tensor in shapes]
        budget, sums = self.request.budget, sum(sum_bytes(w, shapes[w.tensor]) for w in known)
        self.spill = Spill() if sums > budget else None
        batches = plan(watches, shapes, budget, spilled=self.spill is not None)
        stream = Stream(self.model, self.samples, self.env.threads, self.env.progress)
        for i, batch in enumerate(batches):
            observers = {w.tensor: self._observer(w) for w in batch.watches}
            what = f"statistics, run {i + 1} of {len(batches)}"
            bad = watch(stream, observers, batch.stack, what)
            self.bad |= bad
            self._keep([observer for name, observer in observers.items() if name not in bad])

    def _observer(self, wanted: Watch) -> Observer:
        axis = channels_around(self.values[wanted.tensor])
        return Observer(wanted, axis, self.sampling, len(self.samples), self.spill)

    def _keep(self, observers: Sequence[Observer]) -> None:
        with ThreadPoolExecutor(max_workers=self.env.threads) as pool:
            sums = side_by_side(pool, Observer.moments, observers)
            for observer, moments in zip(observers, sums, strict=True):
                self._keep_one(observer, moments)

    def _keep_one(self, observer: Observer, moments: Mapping[Tap, MomentsBuilder]) -> None:
        name = observer.watch.tensor
        empty = observer.watch.stats and observer.stats is None
        if empty or len(moments) < len(observer.watch.taps):
            self.missing[name] = "it was empty in all samples"
            return
        for tap, found in moments.items():
            self.moments.put(tap, found)
        if observer.stats is not None:
            self.tensors[name] = observer.stats
            if self.folder is not None:
                write_tensor(file_of(self.folder, self.key, name), observer.stats)

    def _blame(self) -> None:
        """Give the reasons of what could not be used; a NaN with the value it comes from."""
        sources: dict[int, str | None] = {}
        for name, why in self.bad.items():
            self.missing[name] = why.reason
            if why.nonfinite:
                if why.sample not in sources:
                    feed = self.samples[why.sample]
                    sources[why.sample] = first_nonfinite(self.model, feed, self.env.threads)
                source = sources[why.sample]
                if source not in (None, name):
                    self.missing[name] += f"; the first value that does is '{source}'"


_CHANNELS_FIRST = frozenset(
    {"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "BatchNormalization",
     "InstanceNormalization", "GroupNormalization", "LRN", "PRelu", "MaxPool", "AveragePool",
     "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool", "MaxUnpool", "DepthToSpace",
     "SpaceToDepth", "Resize", "Upsample"}
)  # fmt: skip


_CHANNELS_LAST = frozenset({"MatMul", "Gemm"})


def channels_around(value: Value) -> int | None:
    """Where the operators that make or read the value have its channels, if they say so."""
    producer = value.producer()
    around = [use.node for use in value.uses()] + ([] if producer is None else [producer])
    operators = {ir.op(node) for node in around}
    if operators & _CHANNELS_FIRST:
        return 1
    return -1 if operators & _CHANNELS_LAST else None


def main_graph_values(model: Model) -> dict[str, Value]:
    """Every value of the main graph by name, in order."""
    graph = model.graph
    found = [*graph.inputs, *graph.initializers.values(), *(v for n in graph for v in n.outputs)]
    return {v.name: v for v in found if v.name}


def _why_absent(model: Model, name: str) -> str:
    inner = any(name == v.name for node in ir.nodes(model) for v in node.outputs)
    return "it lies inside a subgraph or a function" if inner else "the model has no such value"
