"""Which samples a fit is judged on: whole runs of neighbours, as views of one photo or pages of one
text tend to lie together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim.ir import Array

_RUNS = 25  # of neighbouring samples; every fifth run is held out
_OUT = 5
_FEWEST = 8  # samples; of fewer none is held out


def split(count: int) -> tuple[list[int], list[int]]:
    """The samples to fit to, and those held out: every fifth of 25 runs."""
    if count < _FEWEST:
        return list(range(count)), []
    run = np.arange(count) * min(_RUNS, count) // count
    out = run % _OUT == _OUT - 1
    return np.flatnonzero(~out).tolist(), np.flatnonzero(out).tolist()


def alternate(kept: Sequence[int], out: Sequence[int], most: int = 255) -> list[int]:
    """Four of those kept and one of those held out, in turns, spread over all of them."""
    rounds = min(len(kept) // (_OUT - 1), len(out), most // _OUT)
    some = np.array(kept)[np.arange(rounds * (_OUT - 1)) * len(kept) // (rounds * (_OUT - 1))]
    others = np.array(out)[np.arange(rounds) * len(out) // rounds]
    turns: Array = np.column_stack([some.reshape(rounds, -1), others])
    return [int(i) for i in turns.ravel()]
