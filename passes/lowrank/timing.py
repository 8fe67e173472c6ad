"""What layers and their factors take, as models of their own that run in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear
from onnxslim.analyses.measured import measured_ms
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.lowrank.alone import INPUT, alone, input_of
from onnxslim.passes.lowrank.emit import Pair, emit_together
from onnxslim.passes.lowrank.schemes import Scheme
from onnxslim.passes.lowrank.survey import Site
from onnxslim.pipeline.base import Environment
from onnxslim.pipeline.stopwatch import sample_of
from onnxslim.runtime.latency import LatencyResult, interleaved_latency

_NOISE = 0.97  # only what is faster by more than that counts
_SECONDS, _MOST_SECONDS = 0.05, 1.0  # for each of the models that take turns, and for all
_WHOLE_SECONDS = 3.0

Ways = Mapping[Scheme, Sequence[int]]
"""Scheme -> the ranks at which it is worth having."""


@dataclass(frozen=True)
class Speed:
    """The median time of the layer and of its pair, measured in turns, in milliseconds."""

    layer_ms: float
    pair_ms: float

    @property
    def faster(self) -> bool:
        """Whether the pair is faster by more than the noise of such measurements."""
        return self.pair_ms < _NOISE * self.layer_ms


@dataclass(frozen=True)
class Times:
    """Milliseconds of some layers that read the same, and of their factors at a few ranks."""

    layer_ms: float
    points: Mapping[Scheme, tuple[tuple[int, float], ...]]

    def at(self, way: Scheme, rank: int) -> float | None:
        """Between what was measured, on straight lines; None where nothing was."""
        known = self.points.get(way)
        if not known:
            return None
        ranks, ms = [r for r, _ in known], [t for _, t in known]
        return float(np.interp(rank, ranks, ms))


@dataclass
class Clock:
    """Measures each kind of layer once: weights do not matter to it."""

    env: Environment
    _known: dict[object, Times | Speed | None] = field(
        default_factory=dict["object", "Times | Speed | None"]
    )

    def times(self, sites: Sequence[Site], ways: Ways) -> Times | None:
        """Those of layers that read the same input, cut in these ways; None where they cannot be
        run alone."""
        points = [(way, rank) for way, ranks in ways.items() for rank in spread(ranks)]
        key = (_kind(sites), tuple(points))
        if key not in self._known:
            self._known[key] = self._times(sites, points)
        found = self._known[key]
        return found if isinstance(found, Times) else None

    def speed(self, sites: Sequence[Site], pairs: Sequence[Pair]) -> Speed | None:
        """Those of layers and the very pairs in their place, likewise."""
        ranks = tuple((p.scheme, p.rank, p.inner and p.inner.rank) for p in pairs)
        key = (_kind(sites), ranks)
        if key not in self._known:
            ms = self._measure(sites, [pairs])
            self._known[key] = None if ms is None else Speed(*ms)
        found = self._known[key]
        return found if isinstance(found, Speed) else None

    def _times(self, sites: Sequence[Site], points: Sequence[tuple[Scheme, int]]) -> Times | None:
        rng = np.random.default_rng(self.env.seed)
        made = [
            [_pivoted(pair, sites, rng) if way.pivoted else pair for pair in pairs]
            for way, rank in points
            for pairs in [[_random(site, way, rank, rng) for site in sites]]
        ]
        ms = self._measure(sites, made)
        if ms is None:
            return None
        found: dict[Scheme, list[tuple[int, float]]] = {}
        for (way, rank), time in zip(points, ms[1:], strict=True):
            found.setdefault(way, []).append((rank, time))
        return Times(ms[0], {way: tuple(sorted(known)) for way, known in found.items()})

    def _measure(
        self, sites: Sequence[Site], made: Sequence[Sequence[Pair]]
    ) -> tuple[float, ...] | None:
        whole = alone(sites)
        models = [whole, *(_cut(whole, sites, pairs) for pairs in made)]
        seconds = min(_SECONDS * len(models), _MOST_SECONDS)
        feed = {INPUT: input_of(sites[0], self.env.seed)}
        try:
            return measured_ms(models, feed, self.env, seconds)
        except RuntimeUnavailable:
            return None


def turns(models: Sequence[Model], env: Environment) -> LatencyResult:
    """Whole models in turns on one sample, long enough to correct a budget by.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run one of them.
    """
    env.progress("timing", 0, 0)
    return interleaved_latency(list(models), sample_of(models[0], env), env.threads, _WHOLE_SECONDS)


def spread(ranks: Sequence[int]) -> tuple[int, ...]:
    """The least, the middle one and the greatest."""
    return tuple(sorted({ranks[0], ranks[len(ranks) // 2], ranks[-1]}))


def _cut(whole: Model, sites: Sequence[Site], pairs: Sequence[Pair]) -> Model:
    model = ir.snapshot(whole)
    layers: list[Linear] = []
    for node in list(model.graph):
        found = linear(node)
        if isinstance(found, Linear):
            layers.append(found)
    emit_together(Editor(model), layers, [site.shape for site in sites], pairs)
    return model


def _kind(sites: Sequence[Site]) -> object:
    """What the time of layers depends on."""
    return tuple(
        (
            site.layer.kind,
            site.shape,
            site.layer.transposed,
            site.layer.bias is None,
            str(site.layer.weight.dtype),
            repr(site.layer.tap.window),
            site.layer.tap.axis,
        )
        for site in sites
    )


def _pivoted(pair: Pair, sites: Sequence[Site], rng: np.random.Generator) -> Pair:
    """With as many outputs from the first factor as fall to the layer on average."""
    out = pair.second.shape[1]
    count = pair.rank * out // sum(site.shape.out for site in sites)
    outputs = np.full(out, -1)
    outputs[rng.permutation(out)[:count]] = rng.permutation(pair.rank)[:count]
    return replace(pair, direct=outputs)


def _random(site: Site, way: Scheme, rank: int, rng: np.random.Generator) -> Pair:
    """Factors of the right shapes."""
    shape = site.shape
    places = way.places(shape)
    between = way.reduced or rank

    def numbers(*sizes: int) -> Array:
        made: Array = rng.standard_normal(sizes) / np.sqrt(sizes[-1])
        return made

    first = numbers(shape.groups, between, shape.features // places)
    second = numbers(shape.groups, shape.out, places, between)
    shift = np.ones(shape.out * shape.groups)
    if not way.reduced:
        return Pair(way, rank, first, second, shift)
    inner = Pair(
        Scheme("channel", tuple(range(len(shape.kernel)))),
        rank,
        numbers(shape.groups, rank, between * places),
        numbers(shape.groups, shape.out, 1, rank),
        np.zeros(shape.out * shape.groups),
    )
    return Pair(way, between, first, second, shift, inner)
