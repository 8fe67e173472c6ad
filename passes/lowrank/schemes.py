"""How a layer can be cut in two: which axes of the kernel each of the two factors takes.

| scheme    | first factor            | second factor            |
|-----------|-------------------------|--------------------------|
| linear    | [in -> r]               | [r -> out]               |
| pivoted   | [in -> r], which are outputs | [r -> the other outputs] (`pivot`) |
| channel   | whole kernel, to r      | 1x1 (Zhang et al. 2015)  |
| spatial   | some kernel axes (kx1)  | the others (1xk) (Jaderberg et al. 2014) |
| pointwise | 1x1, to r               | whole kernel             |
| tucker    | 1x1, to a given r       | whole kernel to s, then 1x1 (Kim et al. 2016) |
| joint     | [in -> r], once for all layers that read the same; also pivoted | [r -> out] each |

Each factor keeps stride, dilation and padding on its own axes. The first has no bias, so a zero
that pads its result is what it gives for zeros: the cut is exact for every stride and padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.lowrank import pivot


@dataclass(frozen=True)
class Geometry:
    """The sizes of one layer. `kernel`, `sites_in` and `sites_out` are empty without a window;
    `rows` is then the number of rows, and with a window the number of images."""

    groups: int
    out: int  # per group
    channels: int  # per group
    rows: int
    kernel: tuple[int, ...] = ()
    sites_in: tuple[int, ...] = ()
    sites_out: tuple[int, ...] = ()

    @property
    def features(self) -> int:
        """d: the length of a row of one group."""
        return self.channels * prod(self.kernel)

    @property
    def macs(self) -> int:
        """Multiplications of the whole layer."""
        return self.rows * prod(self.sites_out) * self.groups * self.out * self.features

    @property
    def params(self) -> int:
        """Numbers in the weight."""
        return self.groups * self.out * self.features

    def inner(self, channels: int) -> Geometry:
        """The same layer with other channels per group."""
        return replace(self, channels=channels)


@dataclass(frozen=True)
class Cost:
    """Multiplications in one run, and numbers in the weights."""

    macs: int
    params: int


@dataclass(frozen=True)
class Scheme:
    """One way to cut: `first` are the kernel axes of the first factor, in order. `reduced` is the
    rank of the inputs of a Tucker cut, whose other rank is then that of the outputs. Of a cut that
    is `pivoted` as many outputs as its rank are what the first factor gives."""

    name: str
    first: tuple[int, ...] = ()
    reduced: int = 0
    pivoted: bool = False

    @property
    def label(self) -> str:
        """What reports call it."""
        return f"pivoted {self.name}" if self.pivoted and self.name != "pivoted" else self.name

    def places(self, shape: Geometry) -> int:
        """The kernel size of the second factor."""
        return prod(k for axis, k in enumerate(shape.kernel) if axis not in self.first)

    def cost(self, shape: Geometry, rank: int) -> Cost:
        """All factors at a rank (per group)."""
        if self.reduced:
            inner = shape.inner(self.reduced)
            reduce = Cost(shape.rows * prod(shape.sites_in), 1)
            share = shape.groups * shape.channels * self.reduced
            rest = Scheme("channel", tuple(range(len(shape.kernel)))).cost(inner, rank)
            return Cost(reduce.macs * share + rest.macs, share + rest.params)
        between = prod(
            shape.sites_out[axis] if axis in self.first else shape.sites_in[axis]
            for axis in range(len(shape.kernel))
        )
        taken = shape.channels * prod(shape.kernel[axis] for axis in self.first)
        put = shape.out * self.places(shape)
        if self.pivoted:
            put -= rank
        macs = shape.rows * (between * taken + prod(shape.sites_out) * put)
        return Cost(rank * shape.groups * macs, rank * shape.groups * (taken + put))

    def useful_ranks(self, shape: Geometry) -> int:
        """The greatest rank for which the factors are smaller than the layer, in multiplications
        or in weights, and that the cut has."""
        at_most = min(shape.features // self.places(shape), shape.out * self.places(shape))
        if self.reduced:
            at_most = min(shape.out, self.reduced * self.places(shape))
        one, two = self.cost(shape, 1), self.cost(shape, 2)
        fixed = Cost(2 * one.macs - two.macs, 2 * one.params - two.params)
        fewer = (shape.macs - 1 - fixed.macs) // max(one.macs - fixed.macs, 1)
        smaller = (shape.params - 1 - fixed.params) // max(one.params - fixed.params, 1)
        return max(min(max(fewer, smaller), at_most), 0)

    def ranks(self, shape: Geometry, step: int) -> range:
        """The multiples of `step` worth having."""
        if self.pivoted:
            return pivot.ranks(shape.features, shape.out, step)
        return range(step, self.useful_ranks(shape) + 1, step)

    def order(self, shape: Geometry) -> Array:
        """The features of a row (channel, *kernel) in the order (second's axes, channel, first's).

        [places * m] indices, for `svd.problem`.
        """
        index = np.arange(shape.features).reshape(shape.channels, *shape.kernel)
        rest = [1 + a for a in range(len(shape.kernel)) if a not in self.first]
        axes = (*rest, 0, *(1 + a for a in self.first))
        return np.transpose(index, axes).ravel()

    def kernels(self, shape: Geometry) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The kernel shapes of the two factors: ones on the axes that the other takes."""
        pairs = [(k, 1) if a in self.first else (1, k) for a, k in enumerate(shape.kernel)]
        return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)


_CORES = (0.25, 0.375, 0.5, 0.625, 0.75)  # of the channels that a Tucker cut keeps


def schemes(shape: Geometry, wanted: str = "auto", step: int = 1) -> list[Scheme]:
    """The cuts that a layer allows, those named `wanted` or all with "auto"; the inputs' rank of a
    Tucker cut is a multiple of `step`."""
    return [s for s in _all(shape, step) if wanted in ("auto", s.name) or s.name == "linear"]


def _all(shape: Geometry, step: int) -> Iterator[Scheme]:
    wide = [axis for axis, k in enumerate(shape.kernel) if k > 1]
    every = tuple(range(len(shape.kernel)))
    if not wide:
        yield Scheme("linear", every)
        if shape.groups == 1:
            yield Scheme("pivoted", every, pivoted=True)
        return
    yield Scheme("channel", every)
    for count in range(1, len(wide)):
        yield from (Scheme("spatial", axes) for axes in combinations(wide, count))
    yield Scheme("pointwise", ())
    cores = sorted({round(share * shape.channels / step) * step for share in _CORES})
    yield from (Scheme("tucker", (), core) for core in cores if 0 < core < shape.channels)
