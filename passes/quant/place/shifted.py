"""Which tensors are shifted channel by channel: those whose error in integers falls by it.

The shift is equal for all inputs (`prepare.shift`), but not finer for all: where few rows reach the
extremes of a channel, the bulk of its numbers moves away from zero. So z is taken from the samples
that are fitted to, and the error that reaches the outputs of the layers behind, |W (Q(x) - x)|^2,
is counted on those held out, with and without z, as the tensor is and smoothed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from onnxslim.analyses.held_out import split
from onnxslim.analyses.observe import Sampling, padding_mask
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.know.facts import Channels
from onnxslim.passes.quant.know.ranges import Observed
from onnxslim.passes.quant.prepare.absorb import middle
from onnxslim.passes.quant.prepare.shift import Shift, shift_channels
from onnxslim.passes.quant.qparams import covering
from onnxslim.passes.quant.weights.smooth import smoothing
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Samples
from onnxslim.runtime.session import Session, open_part
from onnxslim.targets.forms import Numbers

MOST, MOST_OUT = 12, 4
"""Samples that are looked at, and those of them that are held out."""

ROWS = 64
"""Of each sample, at most."""

OUTPUTS = 256
"""Of a weight, whose rows tell how much each channel counts."""

WORTH = 0.8
"""What is left of the error on samples held out, at most, for a tensor to be shifted."""

BINS = 512

SHRINK = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Of the range, the parts among which the best one is taken."""


def fit_shifts(
    model: Model, env: Environment, found: Sequence[Shift], smoothed: Iterable[bool]
) -> int:
    """Shift those of the `found` tensors of a prepared float model that gain by it, in place;
    returns how many.

    `smoothed`: whether they are going to be divided channel by channel where that pays; with both
    possible, both must gain. Nothing where there are too few samples to hold some out. Costs
    one run of 12 samples. Raises RuntimeUnavailable.
    """
    fit, out = split(len(env.calib) if env.calib else 0, MOST, MOST_OUT)
    if env.calib is None or not found or not out:
        return 0
    session = open_part(model, [str(s.value.name) for s in found], threads=env.threads)
    seen, held = (_rows(session, env.calib.take(some), found) for some in (fit, out))
    numbers, chosen = env.target.form.activation, list[tuple[Shift, Array]]()
    for shift in found:
        name = str(shift.value.name)
        z = _gaining(shift, seen[name], held[name], numbers, tuple(smoothed))
        if z is not None:
            chosen.append((shift, z))
    shift_channels(Editor(model), chosen)
    return len(chosen)


def _rows(session: Session, samples: Samples, found: Sequence[Shift]) -> Mapping[str, Array]:
    """Tensor -> some of its rows, [n, C]; without those of padding."""
    rows: dict[str, list[Array]] = {str(shift.value.name): [] for shift in found}
    for index, feed in enumerate(samples):
        mask, values = padding_mask(feed), session.run(feed)
        for shift in found:
            name = str(shift.value.name)
            own = values.pop(name).reshape(-1, shift.channels)
            fits = mask is not None and mask.size == len(own)
            candidates = np.flatnonzero(mask) if mask is not None and fits else len(own)
            picked = Sampling(ROWS).rows(candidates, ROWS, index)
            rows[name].append(own if picked is None else own[picked])
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def _gaining(
    shift: Shift, fit: Array, out: Array, numbers: Numbers, smoothed: Sequence[bool]
) -> Array | None:
    """Half-way between the extremes of each channel, [C], if the error falls by it."""
    if not fit.size or not out.size or not (np.isfinite(fit).all() and np.isfinite(out).all()):
        return None
    z = middle(*(f(fit, axis=0).astype(np.float64) for f in (np.min, np.max)))
    if z is None:
        return None
    every = np.concatenate([fit, out])
    weights = [layer.matrix()[0] for layer in shift.layers]
    some = [weight[:: -(-len(weight) // OUTPUTS)] for weight in weights]

    def falls(smooth: bool) -> bool:
        before, after = (tensor_error(every - c, out - c, some, numbers, smooth) for c in (0.0, z))
        return after < WORTH * before

    return z if all(map(falls, smoothed)) else None


def tensor_error(
    every: Array, rows: Array, weights: Sequence[Array], numbers: Numbers, smooth: bool
) -> float:
    """Squared error behind the layers with these weights [out, C] when some rows [n, C] are rounded
    to `numbers`, in a range, and divided by what is best for `every` row [m, C]."""
    if smooth:
        known = Channels(every.min(axis=0), every.max(axis=0), every.mean(axis=0))
        s = smoothing(known, weights)
        if s is not None:
            every, rows, weights = every / s, rows / s, [weight * s for weight in weights]
    low, high = float(every.min()), float(every.max())
    counts, _ = np.histogram(every, BINS, (low, high))
    seen = Observed(low, high, counts, low, high)
    params = min((covering(low * f, high * f, numbers) for f in SHRINK), key=seen.squared_error)
    error = ((params.fake(rows) - rows) ** 2).mean(axis=0)
    return float(sum((weight.astype(np.float64) ** 2).sum(axis=0) @ error for weight in weights))
