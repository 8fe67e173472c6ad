"""What each pass brought: measured between passes that worked on layers, and only there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Model
from onnxslim.passes.check.check import Check
from onnxslim.pipeline.analysis import AnalysisManager, Aspect
from onnxslim.pipeline.base import Context, Environment, Layer, Pass, PassResult
from onnxslim.pipeline.manager import run_passes
from onnxslim.report.effects import effects
from onnxslim.report.footprint import FootprintEach
from onnxslim.report.record import Effect
from onnxslim.runtime.samples import FeedList
from onnxslim.targets import get_target
from tests.small import TEXT


@dataclass(frozen=True, kw_only=True)
class Scale(Pass):
    """The weight times a number: an error of a known size."""

    name: ClassVar[str] = "scale"
    by: float = 1.0
    tells: bool = True

    def run(self, model: Model, ctx: Context) -> PassResult:
        value = model.graph.initializers["w"]
        found = ir.array(value)
        assert found is not None
        ir.Editor(model).replace_initializer(value, (self.by * found).astype(np.float32))
        rows = (Layer("w", "MatMul", "scaled"),) if self.tells else ()
        return PassResult(changed=Aspect.WEIGHTS | Aspect.NUMERICS, layers=rows)


@pytest.fixture
def ctx() -> Iterator[Context]:
    model = ir.parse_text(TEXT.replace("{0.5, 0.25, 0}", "{0, 0, 0}"))
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((2, 4)).astype(np.float32)} for _ in range(6)]
    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor, evaluation=FeedList(feeds))
        yield Context(env, AnalysisManager(model, env), ir.snapshot(model))


def measured(ctx: Context, *passes: Pass, ms: float | None = 0.01) -> list[Effect | None]:
    footprints = FootprintEach()
    model = ir.snapshot(ctx.original)
    stages = run_passes(model, [*passes, Check(metric="sqnr")], ctx, [footprints])
    return effects(stages, footprints.seen, ctx, ms)


def test_every_state_is_compared_with_the_original(ctx: Context) -> None:
    first, second, check = measured(ctx, Scale(by=1.1), Scale(by=1 / 1.1 + 0.01))
    assert first is not None
    assert second is not None
    assert check is None
    # y = W x: an error of a share s of the weight is one of s^2 of the output's power
    assert first.sqnr_db == pytest.approx(-20 * np.log10(0.1), abs=0.01)
    assert second.sqnr_db == pytest.approx(-20 * np.log10(0.011), abs=0.01)
    assert (first.size, first.macs, first.samples) == (1.0, 1.0, 6)
    assert first.time is not None
    assert first.time > 0


def test_the_report_has_the_whole_where_one_pass_did_it(ctx: Context) -> None:
    assert measured(ctx, Scale(by=1.1)) == [None, None]
    assert measured(ctx, Scale(by=1.1, tells=False), Scale(by=1.1)) == [None, None, None]


def test_a_model_that_takes_long_is_not_timed_again(ctx: Context) -> None:
    first, *_ = measured(ctx, Scale(by=1.1), Scale(by=1.1), ms=1000.0)
    assert first is not None
    assert first.time is None
    assert first.samples == 1  # of six, for which there is no time
