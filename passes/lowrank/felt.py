"""In which directions an error of a table's row is felt in the outputs of the model.

What reads an embedding, a normalization and attention, takes some directions for much and others
for next to nothing. To first order an error e of one row that is read changes the outputs by J e;
the mean of J^T J, relative to the power of the outputs, is the metric in which the row is to be cut
(as the Gauss-Newton matrix weighs errors of weights: LeCun, Denker and Solla 1990). J is taken
column by column, from runs with a step along each axis of a row, in one place of each sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.collect import stacked
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Array, Model
from onnxslim.passes.lowrank.gain import noise_input
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import Feed, Samples
from onnxslim.runtime.session import Session, open_session

PLACES = 32
"""Samples in which one place is tried, at most."""
_LEAST = 4  # of them: fewer tell of themselves alone
_WORK = 5e11  # multiplications by weights for all runs together, some ten seconds
_STEP = 0.05  # of the root mean square length of the rows
_SHRUNK = 0.03  # towards what feels all directions alike, as samples are few
_ROWS = 128  # steps in one run
_SAME = 1e-3  # of the largest output: so far a sample in a batch may be from the same one alone


def felt(
    model: Model, read: str, rows: Array, lengths: Sequence[int], samples: Samples, env: Environment
) -> Array | None:
    """The metric [d, d], of trace d, for errors of what a Gather reads from `rows` [v, d].

    `read` is the Gather's output and `lengths` how many rows each sample reads. The shortest
    samples are taken, as far as there is time; every one counts as one. None where that are too
    few, or where the model takes no batches.
    """
    size = int(rows.shape[1])
    chosen = _affordable(lengths, size * _work_per_row(model, rows.size))
    if len(chosen) < _LEAST:
        return None
    copy = ir.snapshot(model)
    noise = str(noise_input(copy, read, ir.infer_types(model, data_propagation=False)).name)
    outputs = [str(value.name) for value in copy.graph.outputs]
    session = open_session(copy, threads=env.threads)
    if not _takes_batches(session, noise):
        return None
    step = _STEP * float(np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1).mean()))
    rng, total = np.random.default_rng(env.seed), np.zeros((size, size))
    for done, number in enumerate(chosen):
        env.progress("directions of a table", done, len(chosen))
        place = int(rng.integers(lengths[number]))
        at = _Place(session, samples[number], noise, place, lengths[number], step, size)
        found = at.metric(outputs)
        if found is None:
            return None
        total += found
    trace = float(np.trace(total))
    if not np.isfinite(trace) or trace <= 0:
        return None
    metric: Array = (1 - _SHRUNK) * total * (size / trace) + _SHRUNK * np.eye(size)
    return metric


def _work_per_row(model: Model, table: int) -> int:
    """What a row that is read is multiplied by, about: the numbers of all other weights."""
    known = {id(tensor): int(tensor.size) for tensor in ir.tensors(model)}
    return max(sum(known.values()) - table, 1)


def _affordable(lengths: Sequence[int], work: float) -> list[int]:
    """The shortest samples that read anything, `work` for each row that they read."""
    order = sorted((i for i, n in enumerate(lengths) if n), key=lambda i: lengths[i])
    spent = np.cumsum([work * lengths[i] for i in order])
    return order[: min(int(np.searchsorted(spent, _WORK, side="right")), PLACES)]


def _takes_batches(session: Session, noise: str) -> bool:
    return not any(
        info.shape is None or not info.shape or isinstance(info.shape[0], int)
        for info in session.inputs
        if info.name != noise and not info.optional
    )


class _Place:
    """One row that one sample reads, and steps from it along each axis."""

    def __init__(
        self, session: Session, feed: Feed, noise: str, place: int, length: int, step: float,
        size: int,
    ) -> None:  # fmt: skip
        self.session, self.feed, self.noise = session, feed, noise
        self.place, self.length, self.step, self.size = place, length, step, size

    def metric(self, outputs: Sequence[str]) -> Array | None:
        """J^T J over the power of the outputs, [d, d]; None where a batch is not what its parts
        are."""
        alone = self._run(np.zeros((1, self.size), np.float32), outputs)
        columns = list[Array]()
        for first in range(0, self.size, _ROWS):
            count = min(_ROWS, self.size - first)
            steps = np.zeros((count + 1, self.size), np.float32)
            steps[np.arange(1, count + 1), first + np.arange(count)] = self.step
            found = None if alone is None else self._run(steps, outputs)
            apart = None if alone is None or found is None else self._apart(alone, found, count + 1)
            if apart is None:
                return None
            columns.append(apart)
        jacobian = np.concatenate(columns)  # [d, numbers of all outputs]
        squared: Array = jacobian @ np.transpose(jacobian)
        return squared

    def _run(self, steps: Array, outputs: Sequence[str]) -> Mapping[str, Array] | None:
        """The outputs of the sample as often as there are steps [n, d], each with its step."""
        try:
            feeds = stacked([self.feed] * len(steps))
            return self.session.run({**feeds, self.noise: self._noise(steps)}, outputs)
        except RuntimeUnavailable:
            return None

    def _apart(
        self, alone: Mapping[str, Array], found: Mapping[str, Array], count: int
    ) -> Array | None:
        """How far the outputs are from those of the first of `count`, which takes no step and must
        be those of the sample alone, over their root mean square and the step, [count - 1, numbers
        of all outputs]."""
        parts = [_differences(alone, found, name, count) for name in alone]
        known = [part for part in parts if part is not None]
        if not known or any(part is None for part in parts):
            return None
        return np.concatenate(known, axis=1) / np.float32(self.step)

    def _noise(self, steps: Array) -> Array:
        """What is added to the rows that are read: [steps * batch, ..., d], zero elsewhere."""
        noise = np.zeros((len(steps), self.length, self.size), np.float32)
        noise[:, self.place] = steps
        return noise


def _differences(
    alone: Mapping[str, Array], found: Mapping[str, Array], name: str, count: int
) -> Array | None:
    """One output's, [count - 1, numbers], over its root mean square."""
    one, many = alone[name], found[name]
    if one.dtype.kind != "f" or many.size != count * one.size or not np.isfinite(many).all():
        return None
    rows = many.reshape(count, -1)
    if float(np.abs(rows[0] - one.ravel()).max()) > _SAME * float(np.abs(one).max(initial=0.0)):
        return None
    power = float(np.square(one, dtype=np.float64).mean())
    apart: Array = rows[1:] - rows[0]
    return apart / np.float32(max(power, 1e-30) ** 0.5 * one.size**0.5)
