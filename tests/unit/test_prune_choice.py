"""Which groups pay for a budget: tried near their start, and again where the budget takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from onnxslim import ir
from onnxslim.passes.prune import choose as module
from onnxslim.passes.prune import trial
from onnxslim.passes.prune.budget import Choice, removal
from onnxslim.passes.prune.choose import Chooser, Chosen, Rules
from onnxslim.passes.prune.trial import Trials, gains
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment
from onnxslim.runtime.samples import FeedList
from onnxslim.targets import get_target
from tests.quantizing import feeds
from tests.unit.test_prune_pass import mlp


@pytest.fixture
def chooser() -> Iterator[Chooser]:
    model = mlp()
    with ThreadPoolExecutor(1) as executor:
        samples = FeedList(feeds(model, 40, {"N": 16}))
        env = Environment(get_target("ort-cpu"), executor, calib=samples)
        context = Context(env, AnalysisManager(model, env), ir.snapshot(model))
        yield Chooser(Rules("ratio", 0.6), model, context, {})


def chosen(chooser: Chooser) -> tuple[Chosen, Trials]:
    found = chooser.choose(chooser.model)
    assert chooser.trials is not None
    return found, chooser.trials


def test_a_gain_makes_the_loss_of_a_group_the_error_of_its_trial(chooser: Chooser) -> None:
    found, trials = chosen(chooser)
    taken = [1 if i == 0 else 0 for i in range(len(found.choices))]
    again = gains(trials, found.choices, taken)
    own = found.choices[0]
    error = trials.error(removal(found.axes, [own], [1]))
    assert error is not None
    assert again[0] * own.own_loss(1) == pytest.approx(error, rel=1e-6)
    assert again[1:] == [choice.gain for choice in found.choices[1:]]


@pytest.mark.parametrize("power", [1, -1])
def test_the_better_of_two_choices_is_taken(
    chooser: Chooser, monkeypatch: pytest.MonkeyPatch, power: int
) -> None:
    """With what the second round says turned round, the first choice stands."""
    again: list[bool] = []

    def turned(
        run: Trials, choices: Sequence[Choice], taken: Sequence[int] | None = None
    ) -> list[float]:
        again.append(taken is not None)
        honest = gains(run, choices, taken)
        return honest if taken is None else [gain**power for gain in honest]

    monkeypatch.setattr(module, "gains", turned)
    both, trials = chosen(chooser)
    assert again == [False, True]
    monkeypatch.setattr(trial, "TRIALS", 0.0)
    first, _ = chosen(chooser)
    assert again == [False, True, False]
    errors = [trials.error(made.removed) for made in (both, first)]
    assert errors[0] is not None
    assert errors[1] is not None
    assert errors[0] <= errors[1]
    assert max(both.left, first.left) <= 0.6
