"""What lies between, where the student may have fewer features than the teacher.

The teacher's features are foretold from the student's by a linear map (Romero et al. 2015, FitNets,
section 2.2, which trains it; here least squares fit it once, to the student as it is given).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from onnxslim.analyses.seen import Shapes
from onnxslim.ir import Array
from onnxslim.passes.distill.graph.api import Tensor, torch
from onnxslim.passes.distill.graph.data import HELD, Pool
from onnxslim.passes.distill.graph.loss import Target
from onnxslim.passes.distill.graph.weights import Weights

PLACES = (0.5, 1.0)
"""Where hints are taken, as shares of the values that all goes through."""

NEAR = 0.15
"""How far from there the smallest value is looked for."""

FITTED = 1024
"""Samples that a map is fitted to."""

_DAMPING = 1e-4  # of the mean square of the student's features


@dataclass(frozen=True)
class Hint:
    """A value of both models, and the axis of its features."""

    name: str
    axis: int


def places(names: Sequence[str], theirs: Shapes, ours: Shapes, samples: int) -> list[Hint]:
    """One value for each of `PLACES`, of those in `names` that differ in one axis at most.

    The teacher's are kept, so that those of all samples have to fit. Shapes are of one sample.
    """
    found: dict[str, Hint] = {}
    for place in PLACES:
        near: list[tuple[int, Hint]] = []
        for at, name in enumerate(names, 1):
            size, hint = prod(theirs.get(name, ())), _hint(name, theirs, ours)
            fits = 4 * size * samples <= HELD // len(PLACES)
            if hint is not None and fits and abs(at / len(names) - place) <= NEAR:
                near.append((size, hint))
        if near:
            hint = min(near, key=lambda one: one[0])[1]
            found.setdefault(hint.name, hint)
    return list(found.values())


def _hint(name: str, theirs: Shapes, ours: Shapes) -> Hint | None:
    wanted, found = theirs.get(name, ()), ours.get(name, ())
    if len(wanted) < 2 or len(wanted) != len(found):
        return None
    apart = [axis for axis, (a, b) in enumerate(zip(wanted, found, strict=True)) if a != b]
    if len(apart) > 1 or 0 in apart:
        return None
    channels = 1 if len(wanted) > 3 else len(wanted) - 1  # of images, and of all else
    return Hint(name, apart[0] if apart else channels)


@dataclass
class Maps:
    """The maps of hints, each [features of the student and one, features of the teacher]; none of
    a hint whose values are no numbers."""

    axes: Mapping[str, int]
    factors: Mapping[str, Tensor]

    def ahead(self, name: str, value: Tensor) -> Tensor:
        """What is foretold of the teacher's value; a value without a map as it is."""
        factor = self.factors.get(name)
        if factor is None:
            return value
        last = value.movedim(self.axes[name], -1)
        return (last @ factor[:-1] + factor[-1]).movedim(-1, self.axes[name])


def fit(
    hints: Sequence[Hint],
    pool: Pool,
    weights: Weights,
    batches: Sequence[Sequence[int]],
    late: Callable[[], bool] = lambda: False,
) -> Maps:
    """The maps of the student as it is, by the samples of these batches; where it gets `late`, of
    the first of them."""
    names = [hint.name for hint in hints]
    powers, products = dict[str, Tensor](), dict[str, Tensor]()
    with torch.no_grad():
        for at, batch in enumerate(batches):
            if not hints or (at and late()):
                break
            for part in pool.batch(batch):
                found = pool.program.run(part.feed, weights.given(), names)
                for hint in hints:
                    x, y = (_rows(v[hint.name], hint.axis) for v in (found, part.wanted))
                    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
                    powers[hint.name] = powers.get(hint.name, 0) + x.T @ x
                    products[hint.name] = products.get(hint.name, 0) + x.T @ y
        solved = {name: _solved(powers[name], products[name], pool) for name in powers}
    factors = {name: factor for name, factor in solved.items() if factor.isfinite().all()}
    return Maps({hint.name: hint.axis for hint in hints}, factors)


def _rows(value: Tensor, axis: int) -> Tensor:
    return value.movedim(axis, -1).flatten(0, -2).double()


def _solved(power: Tensor, product: Tensor, pool: Pool) -> Tensor:
    damping = _DAMPING * power.diagonal()[:-1].mean().clamp(min=1e-12)
    damped = power + damping * torch.eye(len(power), dtype=power.dtype, device=power.device)
    return torch.linalg.solve(damped, product).to(pool.program.dtype)


def by_feature(maps: Maps, answers: Sequence[Mapping[str, Array]]) -> list[Target]:
    """The hints as targets, with the mean variance of single features, whose means differ too."""
    found: list[Target] = []
    for name in maps.factors:
        values = torch.cat([_rows(torch.as_tensor(one[name]), maps.axes[name]) for one in answers])
        variance = float(values.var(0, correction=0).mean())
        found.append(Target(name, "numbers", max(variance, 1e-12)))
    return found
