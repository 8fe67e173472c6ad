"""What a group's loss means for the outputs of the model: one trial for each group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes import AxisMap, Group
from onnxslim.analyses.distance import distance_to, outputs_of
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.prune.budget import Choice, removal
from onnxslim.passes.prune.compensate import compensate
from onnxslim.passes.prune.effort import TRIALS, affordable
from onnxslim.passes.prune.evidence import Evidence
from onnxslim.passes.prune.mask import mask
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.blas import side_by_side

_FEWEST, _SAMPLES = 8, 64
_TRIALS = 40
_DISTURBANCE = 0.03  # relative loss that a trial is made at, as nearly as there is one
_LEAST = 1e-3  # of the greatest gain: below it one trial says nothing


class Trials:
    """Cuts made in copies of a model, masked and (if `repaired`) compensated, and what they do to
    its outputs on some of the samples held out: at most 64, fewer for a model of many `macs`.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """

    def __init__(
        self,
        model: Model,
        axes: AxisMap,
        evidence: Evidence,
        env: Environment,
        repaired: bool,
        work: float,
    ) -> None:
        """`work`: multiply-accumulates of all trials of one sample."""
        assert evidence.trial is not None
        self.model, self.axes, self.evidence, self.env = model, axes, evidence, env
        self.repaired = repaired
        count = min(affordable(TRIALS / 2, work, _FEWEST, _SAMPLES), len(evidence.trial))
        self.affords_more = work * count <= TRIALS / 2
        some = [i * len(evidence.trial) // count for i in range(count)]
        self.samples = evidence.trial.take(some)
        self.wanted = outputs_of(model, self.samples, env.threads)

    def error(self, removed: Array) -> float | None:
        """The relative error of the outputs without these classes; None where none is a float."""
        copy = ir.snapshot(self.model)
        if self.repaired:
            compensate(Editor(copy), self.axes, removed, self.evidence)
        mask(Editor(copy), self.axes, removed)
        return distance_to(self.wanted, copy, self.samples, 1)


def gains(
    trials: Trials, choices: Sequence[Choice], taken: Sequence[int] | None = None
) -> list[float]:
    """For each group the relative error of the model's outputs per relative loss of the group,
    from a cut of it alone (at most about 40 of them: `together`).

    `taken`: after how many steps; a group of none keeps its gain.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """
    tried = [i for i in range(len(choices)) if taken is None or taken[i]]
    shared = together([choices[i].ranking.group for i in tried])
    runs = [[tried[i] for i in run] for run in shared]

    def one(run: list[int]) -> float | None:
        some = [choices[i] for i in run]
        at = [_reference(choices[i]) if taken is None else taken[i] for i in run]
        loss = sum(choice.own_loss(step) for choice, step in zip(some, at, strict=True))
        if loss <= 0:
            return None
        error = trials.error(removal(trials.axes, some, at))
        return None if error is None or not np.isfinite(error) else error / loss

    found: list[float | None] = [None if taken is None else choice.gain for choice in choices]
    for done, value in enumerate(side_by_side(trials.env.executor, one, runs)):
        for i in runs[done]:
            found[i] = value if value is not None or taken is None else choices[i].gain
        trials.env.progress("trials of groups", done + 1, len(runs))
    top = max((value for value in found if value is not None), default=1.0) or 1.0
    return [top if value is None else max(value, _LEAST * top) for value in found]


def together(groups: Sequence[Group]) -> list[list[int]]:
    """Which groups share a trial: all have their own up to 40; of more, neighbours of the same kind
    that as many layers read. So the cost grows with the layers and not with their square."""
    size = -(-len(groups) // _TRIALS)
    alike: dict[tuple[str, int], list[int]] = {}
    for i, group in enumerate(groups):
        alike.setdefault((group.kind, len(group.columns)), []).append(i)
    return [some[at : at + size] for some in alike.values() for at in range(0, len(some), size)]


def _reference(choice: Choice) -> int:
    losses = [max(choice.own_loss(at), 1e-12) for at in range(len(choice.steps))]
    apart = [abs(np.log(loss / _DISTURBANCE)) for loss in losses[1:]]
    return 1 + int(np.argmin(apart)) if apart else 0
