"""What a group's loss means for the outputs of the model: one trial for each group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxslim import ir
from onnxslim.analyses.axes import AxisMap, Group
from onnxslim.analyses.distance import distance_to, outputs_of
from onnxslim.ir import Editor, Model
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


def gains(
    model: Model,
    axes: AxisMap,
    choices: Sequence[Choice],
    evidence: Evidence,
    env: Environment,
    repaired: bool,
    macs: float,
) -> list[float]:
    """For each group the relative error of the model's outputs per relative loss of the group.

    The group is pruned in a copy, masked and (if `repaired`) compensated. Cost: at most about 40
    sessions (`together`), and at most 64 of the samples held out, fewer for a model of many `macs`.

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot run the model.
    """
    assert evidence.trial is not None
    trials = together([choice.ranking.group for choice in choices])
    count = min(affordable(TRIALS, macs * len(trials), _FEWEST, _SAMPLES), len(evidence.trial))
    samples = evidence.trial.take([i * len(evidence.trial) // count for i in range(count)])
    wanted = outputs_of(model, samples, env.threads)

    def one(trial: list[int]) -> float | None:
        some = [choices[i] for i in trial]
        at = [_reference(choice) for choice in some]
        loss = sum(choice.loss(step) for choice, step in zip(some, at, strict=True))
        if loss <= 0:
            return None
        removed = removal(axes, some, at)
        copy = ir.snapshot(model)
        if repaired:
            compensate(Editor(copy), axes, removed, evidence)
        mask(Editor(copy), axes, removed)
        error = distance_to(wanted, copy, samples, 1)
        return None if error is None else error / loss

    found: list[float | None] = [None] * len(choices)
    for done, value in enumerate(side_by_side(env.executor, one, trials)):
        for i in trials[done]:
            found[i] = value
        env.progress("trials of groups", done + 1, len(trials))
    known = [value for value in found if value is not None and np.isfinite(value)]
    top = max(known, default=1.0) or 1.0
    return [max(v, _LEAST * top) if v is not None and np.isfinite(v) else top for v in found]


def together(groups: Sequence[Group]) -> list[list[int]]:
    """Which groups share a trial: all have their own up to 40; of more, neighbours of the same kind
    that as many layers read. So the cost grows with the layers and not with their square."""
    size = -(-len(groups) // _TRIALS)
    alike: dict[tuple[str, int], list[int]] = {}
    for i, group in enumerate(groups):
        alike.setdefault((group.kind, len(group.columns)), []).append(i)
    return [some[at : at + size] for some in alike.values() for at in range(0, len(some), size)]


def _reference(choice: Choice) -> int:
    losses = [max(choice.loss(at), 1e-12) for at in range(len(choice.steps))]
    apart = [abs(np.log(loss / _DISTURBANCE)) for loss in losses[1:]]
    return 1 + int(np.argmin(apart)) if apart else 0
