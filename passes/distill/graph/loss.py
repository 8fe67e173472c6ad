"""How far the student's answers are from the teacher's.

Class scores: the KL divergence at a temperature (Hinton et al. 2015, section 2) plus the squared
error over the variance of the teacher's scores (Kim et al. 2021 find matching of logits the better
of the two; the sum keeps both the ranking and the margins). Probabilities: KL alone. Other floats:
the squared error over the variance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim.ir import Array
from onnxslim.passes.distill.graph.api import Tensor, torch

_SUM = 1e-3  # how far from 1 rows of probabilities may add up


@dataclass(frozen=True)
class Target:
    """One output: what it is taken for, and the variance of the teacher's numbers."""

    name: str
    kind: str  # "scores", "probabilities" or "numbers"
    variance: float


def targets_of(wanted: Sequence[Mapping[str, Array]], names: Sequence[str]) -> list[Target]:
    """What the outputs are, from the teacher's answers to some samples; floats alone."""
    found: list[Target] = []
    for name in names:
        arrays = [answers[name] for answers in wanted]
        if any(getattr(a, "dtype", np.dtype(object)).kind != "f" for a in arrays):
            continue
        flat = np.concatenate([a.astype(np.float64).ravel() for a in arrays])
        found.append(Target(name, _kind(arrays), max(float(flat.var()), 1e-12)))
    return found


def _kind(arrays: Sequence[Array]) -> str:
    if any(a.ndim < 2 or a.shape[-1] < 2 for a in arrays):
        return "numbers"
    probable = all(
        (a >= 0).all() and np.allclose(a.sum(axis=-1), 1, rtol=0, atol=_SUM) for a in arrays
    )
    if probable:
        return "probabilities"
    return "scores" if all(a.ndim == 2 for a in arrays) else "numbers"


def loss_of(
    target: Target,
    answer: Tensor,
    wanted: Tensor,
    kept: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """The loss of one output over a batch, a number; `kept` are the rows that are no padding."""
    if kept is not None:
        answer, wanted = (x.reshape(-1, x.shape[-1])[kept] for x in (answer, wanted))
    apart = (answer - wanted).square().mean() / target.variance
    if target.kind == "numbers":
        return apart
    if target.kind == "probabilities":
        ours, theirs = (torch.log(x.clamp(min=1e-8)) for x in (answer, wanted))
        return _divergence(ours, theirs, temperature)
    return apart + _divergence(answer, wanted, temperature)


def _divergence(answer: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(wanted / T) | softmax(answer / T)), the mean over rows."""
    ours, theirs = (torch.log_softmax(x / temperature, -1) for x in (answer, wanted))
    return temperature**2 * (theirs.exp() * (theirs - ours)).sum(-1).mean()
