"""Two choices made: that which the outputs suffer less from is taken, where samples can say it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from onnxslim import ir
from onnxslim.passes.lowrank.lowrank import Lowrank
from onnxslim.passes.lowrank.settle import Settled
from onnxslim.passes.lowrank.trial import can_judge, least_error
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment
from onnxslim.runtime.samples import Samples
from onnxslim.targets import get_target
from tests.unit.test_lowrank_budgets import ids, tied_model
from tests.unit.test_lowrank_pass import MLP, MLP_SHAPES, build, feeds, run


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def context(model: ir.Model, calib: Samples, executor: ThreadPoolExecutor) -> Context:
    env = Environment(get_target("ort-cpu"), executor, calib=calib)
    return Context(env, AnalysisManager(model, env), ir.snapshot(model))


@pytest.mark.parametrize("table", [False, True])
def test_what_errs_less_is_taken_and_the_model_stays(
    table: bool, executor: ThreadPoolExecutor
) -> None:
    model = tied_model() if table else build(MLP, MLP_SHAPES)
    calib = ids() if table else feeds((16, 64))
    ctx, before = context(model, calib, executor), ir.to_bytes(model)
    _, _, mild = Lowrank(params=0.8, measure=False).plan(model, ctx)
    _, _, severe = Lowrank(params=0.3, measure=False).plan(model, ctx)
    assert bool(severe.tables) == table
    assert least_error(model, ctx, [severe, mild]) == 1
    assert least_error(model, ctx, [mild, severe]) == 0
    assert ir.to_bytes(model) == before


def test_without_samples_held_out_the_first_is_taken(executor: ThreadPoolExecutor) -> None:
    model = build(MLP, MLP_SHAPES)
    ctx = context(model, feeds((16, 64)).take(range(7)), executor)
    assert not can_judge(ctx)
    _, _, cut = Lowrank(params=0.5, measure=False).plan(model, ctx)
    assert least_error(model, ctx, [cut, Settled()]) == 0


def test_a_large_model_is_cut_once_by_the_gains(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxslim.passes.lowrank.lowrank._TRIED", 1000)
    options = Lowrank(params=0.5, measure=False)
    result = run(build(MLP, MLP_SHAPES), executor, feeds((16, 64)), options)
    assert result.stats["gain_power"] == 1.0


def test_the_result_says_what_weighed_the_losses(executor: ThreadPoolExecutor) -> None:
    options = Lowrank(params=0.5, measure=False)
    result = run(build(MLP, MLP_SHAPES), executor, feeds((16, 64)), options)
    assert result.stats["gain_power"] in (0.5, 1.0)
