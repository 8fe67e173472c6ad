"""What calibration samples tell of the inputs of layers, and how far that can be believed.

Statistics of some samples are fitted to, those of the others say what a fit is worth. Whole runs
of neighbouring samples are held out: views of one photo or pages of one text tend to lie together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxslim.analyses.columns import Tap
from onnxslim.analyses.held_out import split
from onnxslim.analyses.layer_stats import LayerStats, Moments
from onnxslim.ir import Array, Model
from onnxslim.passes.refit.refit import SAMPLES
from onnxslim.passes.refit.solve import solved
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Samples

SHARES = (1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)
"""How much a covariance may be drawn to its diagonal; at 1 nothing is made up for."""
_RIDGE = 1e-6  # of the mean variance, so that channels that never change can be inverted
UNTESTED = 1e-2  # share where no samples are held out and rows are many
_TRIED = 128  # outputs of a layer, for its share
JUDGED = 1  # rows per feature held out: errors are averaged over them, nothing is inverted
ROWS_PER_FEATURE = 4  # for a covariance that can be inverted as it is


@dataclass(frozen=True)
class Evidence:
    """Moments of the inputs of layers: of the samples fitted to, and of those held out."""

    fit: Mapping[Tap, Moments]
    held: Mapping[Tap, Moments]
    trial: Samples | None = None  # samples held out, or where there are none those fitted to
    refits: int = SAMPLES  # samples at most when layers are fitted again
    shares: dict[str, float] = field(default_factory=dict[str, float])

    def share(self, name: str, tap: Tap, weight: Array, lost: Array, centre: Array) -> float:
        """`share_of` of the layer with this name, found once: it varies little with what goes."""
        if name not in self.shares:
            held = self.held.get(tap)
            self.shares[name] = share_of(weight, self.fit[tap], held, lost, centre)
        return self.shares[name]

    def whole(self, tap: Tap) -> Moments:
        """The moments over all samples."""
        held = self.held.get(tap)
        return self.fit[tap] if held is None else self.fit[tap].merge(held)

    def sizes(self) -> list[tuple[int, int]]:
        """Rows seen and features of each tap."""
        held = {tap: seen.n for tap, seen in self.held.items()}
        return [(m.n + held.get(t, 0), int(m.mean.shape[1])) for t, m in self.fit.items()]


def collect(model: Model, taps: Sequence[Tap], env: Environment, refits: int = SAMPLES) -> Evidence:
    """Run all samples once; at most `refits` of them are for fitting again.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """
    assert env.calib is not None
    request = LayerStats(taps=tuple(taps))

    def of(samples: Samples, request: LayerStats) -> Mapping[Tap, Moments]:
        found = AnalysisManager(model, replace(env, calib=samples)).get(request).moments
        return Sound(found)

    kept, out = split(len(env.calib))
    if not out:
        return Evidence(of(env.calib, request), {}, env.calib, refits)
    held = env.calib.take(out)
    judges = replace(request, per_feature=JUDGED)
    return Evidence(of(env.calib.take(kept), request), of(held, judges), held, refits)


class Sound(Mapping[Tap, Moments]):
    """Those of which all numbers are finite, read when they are asked for."""

    def __init__(self, found: Mapping[Tap, Moments]) -> None:
        self._found = found
        self._taps = [tap for tap, seen in found.items() if np.isfinite(seen.scatter).all()]

    def __getitem__(self, tap: Tap) -> Moments:
        if tap not in self._taps:
            raise KeyError(tap)
        return self._found[tap]

    def __iter__(self) -> Iterator[Tap]:
        return iter(self._taps)

    def __len__(self) -> int:
        return len(self._taps)


def shrunk(covariance: Array, share: float) -> Array:
    """(1 - share) C + share diag(C), and a trace of the identity. [d, d] -> [d, d].

    Ledoit and Wolf 2004 shrink towards the identity; towards the diagonal channels keep their own
    variances, and at 1 the loss of a column is the square of its weights times its variance.
    """
    found: Array = (1 - share) * covariance
    own = np.diagonal(covariance)
    found[np.diag_indices_from(found)] = own + _ridge(own)
    return found


def _ridge(variances: Array) -> float:
    level = float(variances.mean())
    return _RIDGE * level if level > 0 else 1.0


def fitted_weight(weight: Array, covariance: Array, lost: Array) -> Array:
    """W_K + W_P C_PK C_KK^-1 and zeros in P, [out, d]."""
    own, cross = _split(weight, covariance, lost)
    kept, found = ~lost, np.zeros_like(weight)
    found[:, kept] = weight[:, kept] + np.transpose(solved(own, cross))
    return found


def _split(weight: Array, covariance: Array, lost: Array) -> tuple[Array, Array]:
    """C_KK [k, k] and C_KP W_P^T [k, out]."""
    read: Array = covariance.take(np.flatnonzero(~lost), axis=0)  # much quicker than by flags
    cross: Array = read.take(np.flatnonzero(lost), axis=1) @ np.transpose(weight[:, lost])
    return read.take(np.flatnonzero(~lost), axis=1), cross


def about(seen: Moments, centre: Array) -> Array:
    """E[(x - centre)(x - centre)^T] over the rows of ungrouped moments, [d, d] float64."""
    return np.asarray(seen.about(centre[None])[0])


def roughly(seen: Moments, centre: Array) -> Array:
    """`about` in float32: enough to compare errors, and to invert what is `shrunk`, where a
    variance is at least `SHARES[0]` of the feature's own; half the time and memory."""
    scale = np.float32(1 / max(seen.n, 1))
    found: Array = np.multiply(seen.scatter[0], scale, dtype=np.float32, casting="same_kind")
    shift = (seen.mean[0] - centre).astype(np.float32)
    if shift.any():
        found += shift[:, None] * shift[None, :]
    return found


def power(change: Array, spread: Array) -> float:
    """tr(dW S dW^T): the mean square that a change of a weight adds to its output. It is computed
    in the type of S."""
    own: Array = change.astype(spread.dtype)
    return float(np.sum((own @ spread) * own, dtype=np.float64))


def share_of(
    weight: Array, fit: Moments, held: Moments | None, lost: Array, centre: Array
) -> float:
    """The share of the diagonal with which a fit errs least on the samples held out, where the
    columns `lost` go. Of many outputs some are looked at: a share is coarse."""
    if held is None:
        wanted = ROWS_PER_FEATURE * int(fit.mean.shape[1])
        return min(UNTESTED * max(1.0, wanted / max(fit.n, 1)), 1.0)
    known, kept = roughly(fit, centre), ~lost
    some = weight[:: -(-len(weight) // _TRIED)]
    judge, change = roughly(held, centre), some.astype(np.float32)
    own, cross = _split(change, known, lost)
    variances = np.diagonal(own) + np.float32(_ridge(np.diagonal(known)))
    drawn = np.empty_like(own)
    errors: dict[int, float] = {}

    def error(at: int) -> float:  # of `fitted_weight` with `shrunk`, without copies of either
        if at not in errors:
            np.multiply(own, 1 - SHARES[at], out=drawn)
            drawn[np.diag_indices_from(drawn)] = variances
            change[:, kept] = -np.transpose(solved(drawn, (1 - SHARES[at]) * cross))
            errors[at] = power(change, judge)
        return errors[at]

    return SHARES[_valley(error, len(SHARES))]


def _valley(error: Callable[[int], float], count: int) -> int:
    """Where an error that falls and then rises is least, of 0 to `count`; from the middle on."""
    at = count // 2
    for step in (-1, 1):
        while 0 <= at + step < count and error(at + step) < error(at):
            at += step
    return at
