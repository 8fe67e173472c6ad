"""What reaches a layer in one model beside what it gives in another: rows of (z, y)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np

from onnxslim.analyses.builder import MomentsBuilder
from onnxslim.analyses.columns import Tap, Window, columns, row_count
from onnxslim.analyses.linear import Linear
from onnxslim.analyses.moments import Moments
from onnxslim.analyses.spill import Spill
from onnxslim.ir import Array
from onnxslim.passes.refit.stretches import Pair
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.ahead import ahead
from onnxslim.runtime.blas import one_thread

_ROWS = 32768  # of each layer, about
_NUMBERS = 8_000_000  # in the rows of a layer that are kept
_PER_NUMBER = 16  # rows that are kept for each number of (z, y)
_FEWEST = 4096
_WIDE = 32 << 20  # bytes of sums; more lie in a file


@dataclass(frozen=True)
class Wanted:
    """A layer of the new model, the value of the old one to compare with, whether rows are to be
    kept, and what is added to the value next: where it differs in the new model, the layer is to
    make up for that (He et al. 2017, arXiv 1707.06168, section 3.3, residual branches)."""

    layer: Linear
    output: str
    keep: bool
    skip: str = ""


@dataclass
class Seen:
    """Rows of (z, y) side by side of one layer: their moments, the rows themselves, or both."""

    moments: MomentsBuilder | None
    rows: list[Array] | None

    def add(self, rows: Array) -> None:
        """Take in some, [groups, n, d + out]."""
        if self.moments is not None:
            self.moments.add(rows)
        if self.rows is not None:
            self.rows.append(rows)

    def all_rows(self) -> Array:
        """All that were kept, [groups, n, d + out]."""
        return np.concatenate(self.rows or [], axis=1)

    def all_moments(self) -> Moments:
        """Those of all rows; there must be some."""
        assert self.moments is not None, "only rows were kept"
        return self.moments.result()


@one_thread()  # once for all samples: it takes about as long as a small one
def collect(
    pair: Pair,
    layers: Sequence[Wanted],
    env: Environment,
    later: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> list[tuple[Seen, Seen]]:
    """What (z, y) look like by layer: in the samples to fit to, whose moments are always there, and
    in those held out, of which rows are kept where they are wanted or fewer than they are long.
    `later`: what comes next of the old and of the new model (see `Stretches.over`)."""
    inputs = list(dict.fromkeys(wanted.layer.tap.tensor for wanted in layers))
    outputs, samples = [wanted.output for wanted in layers], len(pair.parts.both)
    skips = [wanted.skip for wanted in layers if wanted.skip]
    olds = pair.old.over(list(dict.fromkeys([*outputs, *skips])), later[0])
    news = pair.new.over(list(dict.fromkeys([*inputs, *skips])), later[1])
    found: dict[str, tuple[Seen, Seen]] = {}
    rng, spill = np.random.default_rng(env.seed), Spill()
    sides = chain(repeat(0, len(pair.parts.fit)), repeat(1, len(pair.parts.held_out)))
    for (ys, zs), side in zip(ahead(zip(olds, news, strict=True)), sides, strict=True):
        tasks = list[_Task]()
        for wanted in layers:
            z = zs[wanted.layer.tap.tensor]
            count, most = row_count(wanted.layer.tap, z.shape), most_rows(wanted) // samples
            chosen = np.sort(rng.choice(count, min(count, max(most, 1)), replace=False))
            if wanted.output not in found:
                found[wanted.output] = _empty(wanted, len(chosen) * len(pair.parts.held_out), spill)
            seen = found[wanted.output][side]
            tasks.append(_Task(wanted.layer, z, target_of(wanted, ys, zs), chosen, seen))
        list(env.executor.map(_Task.done, tasks))
    return [found[name] for name in outputs]


def target_of(wanted: Wanted, ys: Mapping[str, Array], zs: Mapping[str, Array]) -> Array:
    """What the layer is to give in the new model."""
    y = ys[wanted.output]
    if not wanted.skip or not y.shape == ys[wanted.skip].shape == zs[wanted.skip].shape:
        return y
    return np.asarray(y + (ys[wanted.skip] - zs[wanted.skip]))


@dataclass(frozen=True)
class _Task:
    """Rows of one layer and one sample, to be taken in."""

    layer: Linear
    z: Array
    y: Array
    chosen: Array
    seen: Seen

    def done(self) -> None:
        """(z, y) side by side, [groups, n, d + out]."""
        own, rank = self.layer.tap, self.y.ndim - 2
        ones = (1,) * rank
        window = None if own.window is None else Window(ones, ones, ones, (0,) * 2 * rank)
        parts = [
            columns(self.z, own, self.chosen),
            columns(self.y, Tap("", window, self.layer.groups), self.chosen),
        ]
        self.seen.add(np.concatenate(parts, axis=2))


def most_rows(wanted: Wanted) -> int:
    """About how many rows of a layer are looked at."""
    width = wanted.layer.in_features * wanted.layer.groups + wanted.layer.out_features
    if not wanted.keep:
        return _ROWS
    return min(_ROWS, _NUMBERS // width, max(_FEWEST, _PER_NUMBER * width))


def _empty(wanted: Wanted, held_out: int, spill: Spill) -> tuple[Seen, Seen]:
    """For rows to fit to, and for about so many held out."""
    groups = wanted.layer.groups
    width = wanted.layer.in_features + wanted.layer.out_features // groups
    file = spill if 8 * groups * width**2 > _WIDE else None
    kept: list[Array] | None = [] if wanted.keep else None
    fit = Seen(MomentsBuilder(groups, width, file), kept)
    if wanted.keep or held_out <= width:
        return fit, Seen(None, [])
    return fit, Seen(MomentsBuilder(groups, width, file), None)
