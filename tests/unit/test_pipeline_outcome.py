"""A check that fails: the first pass over budget is named, and the last good state can be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from onnxslim import ir
from onnxslim.ir import Model
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Pass, PassResult, Verdict
from onnxslim.pipeline.manager import run_passes
from onnxslim.pipeline.outcome import Outcome, settle
from tests.pipelines import context


@dataclass(frozen=True, kw_only=True)
class Worsen(Pass):
    """Adds its cost to a number that the model carries."""

    name: ClassVar[str] = "worsen"
    by: int = 0

    def run(self, model: Model, ctx: Context) -> PassResult:
        if not self.by:
            return PassResult()
        model.model_version = (model.model_version or 0) + self.by
        return PassResult(changed=Aspect.NUMERICS)


@dataclass(frozen=True, kw_only=True)
class Budget(Pass):
    """Passes while the cost is at most 10."""

    name: ClassVar[str] = "check"

    def run(self, model: Model, ctx: Context) -> PassResult:
        cost = float(model.model_version or 0)
        good = cost <= 10
        why = () if good else (f"cost {cost:g}, at most 10",)
        verdict = Verdict("cost", 0.0, cost, cost, 10.0, 1, {}, good, reasons=why)
        return PassResult(verdict=verdict)


ctx = pytest.fixture(context)


def outcome(ctx: Context, costs: list[int], *, keep_best: bool = False) -> Outcome:
    passes = [*(Worsen(by=cost) for cost in costs), Budget()]
    stages = run_passes(ir.snapshot(ctx.original), passes, ctx)
    return settle(stages, ctx, keep_best)


def test_a_check_that_passes_is_the_end_of_it(ctx: Context) -> None:
    found = outcome(ctx, [1, 2])
    assert found.failure == ""
    assert (found.model.model_version, found.kept, found.first_over_budget) == (3, 3, None)


@pytest.mark.parametrize(
    ("costs", "first"),
    [
        ([20], "worsen{by=20}"),
        ([1, 20], "worsen{by=20}"),
        ([1, 10, 30], "worsen{by=10}"),
        ([11, 0, 5], "worsen{by=11}"),
        ([5, 11, 0], "worsen{by=11}"),
    ],
)
def test_the_first_pass_over_budget_is_named(ctx: Context, costs: list[int], first: str) -> None:
    found = outcome(ctx, costs)
    assert found.first_over_budget == first
    total = sum(costs)
    assert found.failure.startswith(
        f"the check failed: cost {total}, at most 10; the first pass over budget is '{first}'"
    )


def test_keep_best_goes_back_to_the_last_good_state(ctx: Context) -> None:
    found = outcome(ctx, [1, 2, 30, 5], keep_best=True)
    assert found.failure == ""
    assert (found.model.model_version, found.kept) == (3, 2)
    assert found.verdict is not None
    assert (found.verdict.passed, found.verdict.after) == (True, 3.0)
    assert [s.kept for s in found.stages] == [True, True, False, False, True]
    (reason,) = {d.reason for s in found.stages for d in s.result.declined}
    assert reason == "undone: the check fails after 'worsen{by=30}' (cost 38, at most 10)"


def test_keep_best_without_a_good_pass_is_the_input(ctx: Context) -> None:
    found = outcome(ctx, [30], keep_best=True)
    assert found.model is ctx.original
    assert found.kept == 0
    assert found.notes == (
        "Already 'worsen{by=30}' fails the check: the output is the input, unchanged.",
    )


def test_a_check_alone_that_fails(ctx: Context) -> None:
    ctx.original.model_version = 11
    found = outcome(ctx, [])
    assert "the first pass over budget is no pass" in found.failure
