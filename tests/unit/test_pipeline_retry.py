"""A check that fails sends the pass that is over budget back, a bounded number of times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from onnxslim import ir
from onnxslim.errors import OptionError
from onnxslim.ir import Model
from onnxslim.pipeline.analysis import Aspect
from onnxslim.pipeline.base import Context, Pass, PassResult, Verdict
from onnxslim.pipeline.instruments import Instrument, Verify
from onnxslim.pipeline.manager import Stage
from onnxslim.pipeline.retry import TRIES, run_within_budget
from onnxslim.report.footprint import FootprintEach
from tests.pipelines import context


@dataclass(frozen=True, kw_only=True)
class Worsen(Pass):
    """Adds its cost to a number that the model carries; `step` less when it is sent back. One cost
    may be none that it can have."""

    name: ClassVar[str] = "worsen"
    by: int = 0
    step: int = 0
    refused: int = -1

    def run(self, model: Model, ctx: Context) -> PassResult:
        if self.by == self.refused:
            raise OptionError("cannot be met")
        model.model_version = (model.model_version or 0) + self.by
        return PassResult(changed=Aspect.NUMERICS)

    def stricter(self, result: PassResult) -> Worsen | None:
        return replace(self, by=self.by - self.step) if self.step else None

    def between(self, result: PassResult, passed: Pass) -> Worsen | None:
        assert isinstance(passed, Worsen)
        middle = (self.by + passed.by) // 2
        return replace(self, by=middle) if middle > passed.by else None


@dataclass(frozen=True, kw_only=True)
class Check(Pass):
    """Passes while the cost is at most 10."""

    name: ClassVar[str] = "check"

    def run(self, model: Model, ctx: Context) -> PassResult:
        cost = float(model.model_version or 0)
        return PassResult(verdict=Verdict("cost", 0.0, cost, cost, 10.0, 1, {}, cost <= 10))


class Ran(Instrument):
    """Names of the passes in the order in which they ran, and the rewinds between them."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def after(self, pass_: Pass, model: Model, ctx: Context, result: PassResult) -> None:
        self.seen.append(str(getattr(pass_, "by", "check")))

    def rewind(self, kept: int) -> None:
        self.seen.append(f"back to {kept}")


ctx = pytest.fixture(context)


def run(ctx: Context, *passes: Worsen) -> tuple[list[Stage], list[str], FootprintEach]:
    ran, footprints = Ran(), FootprintEach()
    model = ir.snapshot(ctx.original)
    stages = run_within_budget(model, [*passes, Check()], ctx, [Verify(), ran, footprints])
    assert model.model_version == stages[-1].model.model_version
    return stages, ran.seen, footprints


def test_a_check_that_passes_sends_nothing_back(ctx: Context) -> None:
    stages, ran, _ = run(ctx, Worsen(by=10, step=1))
    assert ran == ["10", "check"]
    assert stages[0].result.notes == ()


def test_the_pass_over_budget_does_less_until_the_check_passes(ctx: Context) -> None:
    stages, ran, footprints = run(ctx, Worsen(by=2, step=1), Worsen(by=14, step=3), Worsen(by=1))
    assert ran == [
        *("2", "14", "1", "check"),
        *("back to 1", "11", "1", "check"),
        *("back to 1", "8", "1", "check"),
        *("back to 1", "5", "1", "check"),
        *("back to 1", "6", "1", "check"),
        *("back to 1", "7", "1", "check"),  # the most that passes
    ]
    verdict = stages[-1].result.verdict
    assert verdict is not None
    assert (verdict.passed, verdict.after) == (True, 10.0)
    assert [stage.model.model_version for stage in stages] == [2, 9, 10, 10]
    assert "worsen was sent back 3 times, because the check failed" in stages[1].result.notes[0]
    assert len(footprints.seen) == 5  # the original and four passes


def test_what_lies_between_a_try_that_failed_and_one_that_passed_is_tried(ctx: Context) -> None:
    stages, ran, footprints = run(ctx, Worsen(by=18, step=16))
    tries = [by for by in ran if by.isdigit()]
    assert tries == ["18", "2", "10", "14", "10"]  # 14 fails again: 10 is put back
    assert stages[-1].model.model_version == 10
    assert len(footprints.seen) == 3
    assert stages[0].pass_ == Worsen(by=10, step=16)
    assert "worsen was sent back once" in stages[0].result.notes[0]


@pytest.mark.parametrize(("step", "tries"), [(0, 0), (1, TRIES)])
def test_it_ends_where_nothing_helps(ctx: Context, step: int, tries: int) -> None:
    stages, ran, _ = run(ctx, Worsen(by=30, step=step))
    assert ran.count("back to 0") == tries
    verdict = stages[-1].result.verdict
    assert verdict is not None
    assert not verdict.passed


def test_only_the_pass_that_is_over_budget_is_sent_back(ctx: Context) -> None:
    _, ran, _ = run(ctx, Worsen(by=20), Worsen(by=1, step=1))
    assert ran == ["20", "1", "check"]


def test_a_milder_budget_that_cannot_be_met_ends_it(ctx: Context) -> None:
    stages, ran, footprints = run(ctx, Worsen(by=30, step=16, refused=14))
    assert ran == ["30", "check", "back to 0", "back to 0", "30", "check"]
    verdict = stages[-1].result.verdict
    assert verdict is not None
    assert not verdict.passed
    assert len(footprints.seen) == 3
    stages, ran, _ = run(ctx, Worsen(by=18, step=16, refused=10))
    assert stages[-1].model.model_version == 2
    assert ran[-2:] == ["2", "check"]
