"""Which samples a fit is judged on: whole runs of neighbours, as views of one photo or pages of one
text tend to lie together."""

from __future__ import annotations

import numpy as np

_RUNS = (8, 25)  # of neighbouring samples, at least and at most; every fifth run is held out
_LONG = 8  # samples that a run should have: views of one photo
_OUT = (2, 5)  # runs that are held out
_FEWEST = 8  # samples; of fewer none is held out


def _runs(count: int) -> int:
    return min(max(count // _LONG, _RUNS[0]), _RUNS[1])


def runs_out(count: int) -> int:
    """How many runs of so many samples are held out, all about as long; 2 or more."""
    return max(round(_runs(count) / _OUT[1]), _OUT[0])


def split(
    count: int, most: int | None = None, most_out: int | None = None
) -> tuple[list[int], list[int]]:
    """The samples to fit to, and those held out: about every fifth of 8 to 25 runs of
    neighbours, and two at least, as one kind of samples may come after another.

    Of many samples `most` are taken, evenly spread, each on the side where it is without that.
    With `most_out` no more are held out, from the middles of the runs; the rest is fitted to.
    """
    some = np.arange(min(count, most or count)) * count // max(min(count, most or count), 1)
    if count < _FEWEST:
        return some.tolist(), []
    runs, judges = _runs(count), runs_out(count)
    judging = np.arange(1, judges + 1) * runs // judges - 1
    run = some * runs // count
    out = np.isin(run, judging)
    if most_out is not None and out.sum() > most_out:
        each = max(most_out // judges, 1)
        for own in [np.flatnonzero(run == at) for at in judging]:
            start = (len(own) - each) // 2
            out[own[:start]] = out[own[start + each :]] = False
    return some[~out].tolist(), some[out].tolist()
