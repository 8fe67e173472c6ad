"""How a layer can be cut in two: which axes of the kernel each of the two factors takes.

| scheme    | first factor            | second factor            |
|-----------|-------------------------|--------------------------|
| linear    | [in -> r]               | [r -> out]               |
| channel   | whole kernel, to r      | 1x1 (Zhang et al. 2015)  |
| spatial   | some kernel axes (kx1)  | the others (1xk) (Jaderberg et al. 2014) |
| pointwise | 1x1, to r               | whole kernel             |

Each factor keeps stride, dilation and padding on its own axes. The first has no bias, so a zero
that pads its result is what it gives for zeros: the cut is exact for every stride and padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import prod

import numpy as np

from onnxslim.ir import Array

NAMES = ("linear", "channel", "spatial", "pointwise")


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


@dataclass(frozen=True)
class Scheme:
    """One way to cut: `first` are the kernel axes of the first factor, in order."""

    name: str
    first: tuple[int, ...] = ()

    def places(self, shape: Geometry) -> int:
        """The kernel size of the second factor."""
        return prod(k for axis, k in enumerate(shape.kernel) if axis not in self.first)

    def macs_per_rank(self, shape: Geometry) -> int:
        """Multiplications that one rank (per group) costs in both factors."""
        between = prod(
            shape.sites_out[axis] if axis in self.first else shape.sites_in[axis]
            for axis in range(len(shape.kernel))
        )
        taken = prod(shape.kernel[axis] for axis in self.first)
        first = between * shape.channels * taken
        second = prod(shape.sites_out) * shape.out * self.places(shape)
        return shape.rows * shape.groups * (first + second)

    def useful_ranks(self, shape: Geometry) -> int:
        """The greatest rank whose two factors cost less than the layer, and that the cut has."""
        cheaper = (shape.macs - 1) // max(self.macs_per_rank(shape), 1)
        places = self.places(shape)
        return min(cheaper, shape.features // places, shape.out * places)

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


def schemes(shape: Geometry, wanted: str = "auto") -> list[Scheme]:
    """The cuts that a layer allows, those named `wanted` or all with "auto"."""
    return [s for s in _all(shape) if wanted in ("auto", s.name) or s.name == "linear"]


def _all(shape: Geometry) -> Iterator[Scheme]:
    wide = [axis for axis, k in enumerate(shape.kernel) if k > 1]
    every = tuple(range(len(shape.kernel)))
    if not wide:
        yield Scheme("linear", every)
        return
    yield Scheme("channel", every)
    for count in range(1, len(wide)):
        yield from (Scheme("spatial", axes) for axes in combinations(wide, count))
    yield Scheme("pointwise", ())
