"""How a training spends its time: how many steps fit, of how many samples, and at what rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed: make test-distill")

from onnxslim.passes.distill import gradient
from onnxslim.passes.distill.graph.hints import Maps
from onnxslim.passes.distill.graph.rates import CAREFUL
from onnxslim.passes.distill.graph.train import Trainer
from onnxslim.runtime.samples import Feed
from tests.distill.training import distill
from tests.quantizing import build
from tests.unit.test_distill_layer import NET, WEIGHTS, disturbed


def test_how_many_steps_fit_is_told_by_the_quickest_of_some(
    samples: list[Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of steps of 9, .5, .1 and .9 s the first is not looked at, and by the last 1 % is over."""
    now, seconds = 0.0, iter([9, 0.5, 0.1, 0.9])
    plans = list[float]()

    def step(self: Trainer, indices: Sequence[int], rate: float) -> float:
        nonlocal now
        now += next(seconds, 10.0)
        return 1.0

    def planned(self: Trainer, first: Any, plan: float, start: float) -> float:
        plans.append(plan)
        return 1e-3

    monkeypatch.setattr(Trainer, "_step", step)
    monkeypatch.setattr(Trainer, "_best_rate", planned)
    monkeypatch.setattr(
        Trainer.__init__, "__defaults__", (None, frozenset[str](), Maps({}, {}), lambda: now)
    )
    monkeypatch.setattr(gradient, "monotonic", lambda: now)
    model = build(NET, WEIGHTS)
    distill(model, disturbed(model, "w2"), samples, level="model", batch=64, minutes=100 / 60)
    assert plans == pytest.approx([100 / 0.1])


@pytest.mark.parametrize(
    ("fits", "options", "expected"),
    [
        (120, {}, 16),
        (700, {}, 32),  # 350 of them
        (1100, {}, 32),
        (5000, {}, 64),
        (120, {"batch": 48}, 48),
        (120, {"steps": 4}, 64),
    ],
)
def test_where_few_steps_fit_they_see_fewer_samples(
    samples: list[Feed],
    monkeypatch: pytest.MonkeyPatch,
    fits: int,
    options: dict[str, Any],
    expected: int,
) -> None:
    """`fits` steps of the smallest batch."""
    seen = set[int]()

    def step(self: Trainer, indices: Sequence[int], rate: float) -> float:
        seen.add(len(indices))
        return float("nan")  # ends it

    def fitting(self: Trainer, first: Any) -> float:
        return fits

    monkeypatch.setattr(Trainer, "_fitting", fitting)
    monkeypatch.setattr(Trainer, "_step", step)
    model = build(NET, WEIGHTS)
    distill(model, disturbed(model, "w2"), samples, level="model", rate=1e-3, **options)
    assert seen == {expected}


@pytest.mark.parametrize(("fits", "trials"), [(119, set[int]()), (120, {8}), (2000, {50})])
def test_rates_are_tried_where_a_trial_takes_no_more_than_a_fifteenth(
    samples: list[Feed], monkeypatch: pytest.MonkeyPatch, fits: int, trials: set[int]
) -> None:
    seen = set[int]()

    def fitting(self: Trainer, first: Any) -> float:
        return fits

    def trial(self: Trainer, rate: float, first: Any, count: int) -> float:
        seen.add(count)
        return 1.0

    def step(self: Trainer, indices: Sequence[int], rate: float) -> float:
        return float("nan")  # ends it

    monkeypatch.setattr(Trainer, "_fitting", fitting)
    monkeypatch.setattr(Trainer, "_trial", trial)
    monkeypatch.setattr(Trainer, "_step", step)
    model = build(NET, WEIGHTS)
    result = distill(model, disturbed(model, "w2"), samples, level="model", batch=64)
    assert seen == trials
    assert (result.stats["rate"] == CAREFUL) == (not trials)
