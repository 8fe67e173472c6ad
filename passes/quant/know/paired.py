"""What layers read in a model that is quantized so far, beside what they should give.

Both models see the same samples, and of each the same rows, so that rows come in pairs: x^ of the
quantized model as the layer would read it in integers, and y = W x of the float model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxslim.analyses.builder import MomentsBuilder
from onnxslim.analyses.columns import Tap, columns, row_count
from onnxslim.analyses.linear import Linear
from onnxslim.analyses.moments import Moments
from onnxslim.analyses.observe import Sampling, entries_of, padding_mask, unpadded
from onnxslim.ir import Array, Model, Value
from onnxslim.passes.quant.qparams import QParams
from onnxslim.runtime.samples import Samples
from onnxslim.runtime.session import Optimize, open_part


@dataclass(frozen=True)
class Paired:
    """Moments of one layer's pairs; all float64."""

    mean: Array  # [G, d] of x^
    covariance: Array  # [G, d, d] of x^
    target: Array  # [G, out/G], the mean of y
    cross: Array  # [G, out/G, d], the covariance of y and x^
    halves: tuple[Paired, ...] = ()  # of the first and the second half of the samples

    def about_zero(self) -> Paired:
        """The same with second moments for covariances: where no bias takes up the mean."""
        second: Array = self.covariance + self.mean[:, :, None] * self.mean[:, None, :]
        cross: Array = self.cross + self.target[:, :, None] * self.mean[:, None, :]
        halves = tuple(half.about_zero() for half in self.halves)
        return Paired(self.mean, second, self.target, cross, halves)

    def divided(self, smooth: Array) -> Paired:
        """Those of x^ / smooth, [d]."""
        return Paired(
            self.mean / smooth,
            self.covariance / np.outer(smooth, smooth),
            self.target,
            self.cross / smooth,
            tuple(half.divided(smooth) for half in self.halves),
        )


@dataclass(frozen=True)
class Reader:
    """A layer, and how its input becomes integers."""

    layer: Linear
    x: QParams
    smooth: Array | None = None  # [C]: the input is divided by it first

    def seen(self, rows: Array) -> Array:
        """Rows [G, n, d] as the integers stand for them, times what they were divided by."""
        if self.smooth is None:
            return self.x.fake(rows).astype(np.float32)
        return (self.x.fake(rows / self.smooth) * self.smooth).astype(np.float32)


@dataclass(frozen=True)
class Looking:
    """At which samples and rows, with how many threads, and in whose arithmetic."""

    samples: Samples
    sampling: Sampling
    threads: int
    optimize: Optimize = "all"

    def rows(self, tap: Tap, features: int, x: Array, index: int) -> Array | None:
        """Which rows of a tensor at a tap, for a sample: the same ones in every model."""
        feed = self.samples[index]
        kept = unpadded(x, padding_mask(feed)) if tap.window is None and tap.axis == -1 else None
        candidates = row_count(tap, x.shape) if kept is None else kept
        limit = self.sampling.limit(features, entries_of(feed), len(self.samples))
        return self.sampling.rows(candidates, limit, index)

    def tensors(self, model: Model, names: Sequence[str]) -> Iterator[Mapping[str, Array]]:
        """Some tensors of the main graph for each sample; the rest of the graph is not run."""
        session = open_part(model, names, threads=self.threads, optimize=self.optimize)
        return (session.run(feed, names) for feed in self.samples)


Targets = Mapping[str, Sequence[Array]]
"""Layer -> for each sample the rows of W x, [G, n, out/G]."""


def targets(model: Model, layers: Mapping[str, Linear], looking: Looking) -> Targets:
    """What layers give in the float model, without their biases.

    Costs one run of the samples; memory: the rows of all of these layers.
    Raises RuntimeUnavailable where the model cannot be run.
    """
    names = sorted({layer.tap.tensor for layer in layers.values()})
    matrices = {name: np.swapaxes(_matrix(layer), 1, 2) for name, layer in layers.items()}
    found: dict[str, list[Array]] = {name: [] for name in layers}
    for index, tensors in enumerate(looking.tensors(model, names)):
        for name, layer in layers.items():
            x = tensors[layer.tap.tensor]
            rows = looking.rows(layer.tap, layer.in_features, x, index)
            found[name].append(columns(x, layer.tap, rows) @ matrices[name])
    return found


def paired(
    model: Model, readers: Mapping[str, Reader], targets: Targets, looking: Looking
) -> dict[str, Paired]:
    """Moments of some layers, by the names in `readers`, over all samples.

    `model`: quantized so far. Layers whose input it no longer holds, or holds no numbers, are left
    out. Costs one run up to these layers. Memory: 2 (d + out)^2 numbers for each group of each.
    Raises RuntimeUnavailable where the model cannot be run.
    """
    there = tensors_of(model)
    readers = {name: r for name, r in readers.items() if r.layer.tap.tensor in there}
    builders = {name: (_builder(r), _builder(r)) for name, r in readers.items()}
    names = sorted({reader.layer.tap.tensor for reader in readers.values()})
    for index, tensors in enumerate(looking.tensors(model, names) if names else ()):
        for name, reader in readers.items():
            tap, x = reader.layer.tap, tensors[reader.layer.tap.tensor]
            rows = looking.rows(tap, reader.layer.in_features, x, index)
            seen = reader.seen(columns(x, tap, rows))
            half = builders[name][2 * index >= len(looking.samples)]
            half.add(np.concatenate([seen, targets[name][index]], axis=2))
    found: dict[str, Paired] = {}
    for name, both in builders.items():
        first, second = (builder.result() for builder in both)
        whole, d = first.merge(second), readers[name].layer.in_features
        if whole.n and np.isfinite(whole.scatter).all():
            halves = (_parts(half, d) for half in (first, second) if half.n)
            found[name] = replace(_parts(whole, d), halves=tuple(halves))
    return found


def _matrix(layer: Linear) -> Array:
    """Without the factor of a Gemm."""
    return np.divide(layer.matrix(), np.float32(layer.alpha))


def _builder(reader: Reader) -> MomentsBuilder:
    layer = reader.layer
    return MomentsBuilder(layer.groups, layer.in_features + layer.out_features // layer.groups)


def tensors_of(model: Model) -> dict[str, Value]:
    """What the main graph reads and computes, by name."""
    made = (value for node in model.graph for value in node.outputs)
    return {str(value.name): value for value in (*model.graph.inputs, *made)}


def _parts(moments: Moments, d: int) -> Paired:
    covariance = moments.covariance()
    return Paired(
        moments.mean[:, :d],
        covariance[:, :d, :d],
        moments.mean[:, d:],
        covariance[:, d:, :d],
    )
