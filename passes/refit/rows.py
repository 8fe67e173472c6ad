"""What reaches a layer in one model beside what it gives in another: rows of (z, y)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim.analyses.builder import MomentsBuilder
from onnxslim.analyses.columns import Tap, Window, columns, row_count
from onnxslim.analyses.linear import Linear
from onnxslim.analyses.spill import Spill
from onnxslim.ir import Array, Model
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Samples
from onnxslim.runtime.session import open_part

_ROWS = 32768  # of each layer, about
_NUMBERS = 8_000_000  # in the rows of a layer that are kept
_PER_NUMBER = 16  # rows that are kept for each number of (z, y)
_FEWEST = 4096
_WIDE = 32 << 20  # bytes of sums; more lie in a file


@dataclass(frozen=True)
class Wanted:
    """A layer of the new model, the value of the old one to compare with, and whether rows are to
    be kept."""

    layer: Linear
    output: str
    keep: bool


@dataclass
class Seen:
    """Rows of (z, y) side by side of one layer: their moments, and the rows where wanted."""

    moments: MomentsBuilder
    rows: list[Array] | None

    def add(self, rows: Array) -> None:
        """Take in some, [groups, n, d + out]."""
        self.moments.add(rows)
        if self.rows is not None:
            self.rows.append(rows)

    def all_rows(self) -> Array:
        """All that were kept, [groups, n, d + out]."""
        return np.concatenate(self.rows or [], axis=1)


def collect(
    original: Model,
    model: Model,
    layers: Sequence[Wanted],
    samples: Samples,
    held_out: Collection[int],
    env: Environment,
) -> list[tuple[Seen, Seen]]:
    """What (z, y) look like by layer: in the samples to fit to, and in those held out."""
    inputs = list(dict.fromkeys(wanted.layer.tap.tensor for wanted in layers))
    outputs = [wanted.output for wanted in layers]
    old = open_part(original, list(dict.fromkeys(outputs)), threads=env.threads)
    new = open_part(model, inputs, threads=env.threads)
    found: dict[str, tuple[Seen, Seen]] = {}
    rng, spill = np.random.default_rng(env.seed), Spill()
    for number, feed in enumerate(samples):
        ys, zs = old.run(feed, outputs), new.run(feed, inputs)
        for wanted in layers:
            at = zs[wanted.layer.tap.tensor], ys[wanted.output]
            rows = _rows(wanted.layer, *at, max(most_rows(wanted) // len(samples), 1), rng)
            if wanted.output not in found:
                empty = (_empty(rows, wanted.keep, spill) for _ in range(2))
                found[wanted.output] = next(empty), next(empty)
            found[wanted.output][int(number in held_out)].add(rows)
    return [found[name] for name in outputs]


def most_rows(wanted: Wanted) -> int:
    """About how many rows of a layer are looked at."""
    width = wanted.layer.in_features * wanted.layer.groups + wanted.layer.out_features
    if not wanted.keep:
        return _ROWS
    return min(_ROWS, _NUMBERS // width, max(_FEWEST, _PER_NUMBER * width))


def _empty(rows: Array, keep: bool, spill: Spill) -> Seen:
    groups, width = int(rows.shape[0]), int(rows.shape[2])
    wide = 8 * groups * width**2 > _WIDE
    kept: list[Array] = []
    return Seen(MomentsBuilder(groups, width, spill if wide else None), kept if keep else None)


def _rows(layer: Linear, z: Array, y: Array, most: int, rng: np.random.Generator) -> Array:
    """Some rows of (z, y) side by side, [groups, n, d + out]."""
    count = row_count(layer.tap, z.shape)
    chosen = np.sort(rng.choice(count, min(count, most), replace=False))
    rank = y.ndim - 2
    ones = (1,) * rank
    window = None if layer.tap.window is None else Window(ones, ones, ones, (0,) * 2 * rank)
    seen = Tap("", window, layer.groups)
    return np.concatenate([columns(z, layer.tap, chosen), columns(y, seen, chosen)], axis=2)
