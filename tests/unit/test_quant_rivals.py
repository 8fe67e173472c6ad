"""Language models: int8 throughout, or weights alone where that is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import RuntimeUnavailable
from onnxslim.ir import Array, Model
from onnxslim.passes.quant import rivals
from onnxslim.passes.quant.choose import compare
from onnxslim.passes.quant.place.known import Known
from onnxslim.passes.quant.quant import Quant
from onnxslim.passes.quant.report import Done
from onnxslim.passes.quant.schemes import by_scheme
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment
from onnxslim.runtime.latency import LatencyResult
from onnxslim.runtime.samples import FeedList
from onnxslim.targets import get_target
from tests.quantizing import any_size, build, kernels, operators, quantize

TEXT = (
    "net (int64[B,S] ids) => (float[B,S,96] y) { e = Gather(t, ids) f = Add(e, p)"
    " [up] h = MatMul(f, wa) r = Softplus(h) [head] y = MatMul(r, wb) }"
)


def decoder(outlier: float) -> Model:
    """A language model, one channel of whose embedding is so many times larger than the others and
    hardly read."""
    rng = np.random.default_rng(0)
    table: Array = rng.normal(size=(96, 64)).astype(np.float32)
    weight: Array = rng.normal(size=(64, 128)).astype(np.float32)
    table[:, 7] *= outlier
    weight[7] /= outlier
    return build(TEXT, {"t": table, "p": (64,), "wa": weight, "wb": (128, 96)})


def timed(ratio: float) -> Callable[..., LatencyResult]:
    """A race of two in which the second takes so many times as long."""

    def race(*args: object, **options: object) -> LatencyResult:
        return LatencyResult(((1.0, ratio),) * 20)

    return race


def test_weights_alone_where_dynamic_ruins_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "interleaved_latency", timed(9.0))
    model = decoder(1000.0)
    result = quantize(model)
    assert kernels(model)["MatMulNBits"] == 2
    assert [row.action.split(",")[0] for row in result.layers[:2]] == ["weight-only"] * 2
    assert "gave weights alone 8 bits" in result.notes[0]
    assert result.timed_on is not None
    assert result.timed_on["ids"].shape == (1, 1)


@pytest.mark.parametrize(
    ("ratio", "kernel"), [(1.5, "DynamicQuantizeMatMul"), (0.8, "MatMulNBits")]
)
def test_else_what_is_faster_for_one_token(
    monkeypatch: pytest.MonkeyPatch, ratio: float, kernel: str
) -> None:
    monkeypatch.setattr(compare, "interleaved_latency", timed(ratio))
    model = decoder(1.0)
    quantize(model)
    assert kernels(model)[kernel] >= 1


def test_an_encoder_stays_dynamic(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> bool:
        raise AssertionError

    monkeypatch.setattr(rivals, "is_better", refuse)
    model = build("net (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", {"w": (64, 64)})
    quantize(model)
    assert operators(model)["MatMulInteger"] + kernels(model)["DynamicQuantizeMatMul"] >= 1


def test_where_nothing_can_be_run_it_is_dynamic(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> bool:
        raise RuntimeUnavailable("no kernel")

    monkeypatch.setattr(rivals, "is_better", fail)
    model = decoder(1000.0)
    quantize(model)
    assert kernels(model)["DynamicQuantizeMatMul"] == 1


def texts(count: int) -> list[Mapping[str, Array]]:
    rng = np.random.default_rng(1)
    return [{"ids": rng.integers(0, 96, (1, 16))} for _ in range(count)]


@pytest.mark.parametrize("alone", [True, False])
def test_with_samples_both_are_made_and_the_better_one_is_kept(
    monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    seen: list[tuple[Counter[str], Counter[str], int]] = []

    def choose(_: Model, one: Model, other: Model, feeds: Sequence[object], *__: object) -> bool:
        seen.append((kernels(one), kernels(other), len(feeds)))
        return alone

    monkeypatch.setattr(rivals, "is_better", choose)
    model = decoder(1.0)
    result = quantize(model, texts(8))
    [(int8, weights, feeds)] = seen
    assert not int8["MatMulNBits"]
    assert weights["MatMulNBits"] == 2
    assert feeds == 2  # one token, and the first sample
    assert kernels(model) == (weights if alone else int8)
    assert any("calibration samples" in note for note in result.notes) == alone


def is_better(one: Model | None, other: Model, before: Model, goal_db: float) -> bool:
    """Judged on samples, without a clock."""
    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor, calib=FeedList(texts(4)))
        return compare.is_better(before, one, other, [], goal_db, env)


def test_what_came_to_nothing_is_beaten_by_what_meets_the_goal() -> None:
    before = decoder(1.0)
    other = ir.snapshot(before)
    quantize(other, scheme="weight")
    assert is_better(None, other, before, 12.0)
    assert not is_better(None, other, before, 60.0)


def test_the_closer_one_is_better_by_the_samples() -> None:
    before = decoder(1.0)
    good, bad = ir.snapshot(before), ir.snapshot(before)
    quantize(good, scheme="weight", weight_bits=8)
    quantize(bad, scheme="weight", weight_bits=2)
    assert is_better(bad, good, before, 12.0)
    assert not is_better(good, bad, before, 12.0)


@pytest.mark.parametrize(("goals", "times"), [((12.0, 20.0), 1), ((12.0, 60.0), 2)])
def test_only_for_a_goal_that_it_misses_it_is_made_again(
    monkeypatch: pytest.MonkeyPatch, goals: Sequence[float], times: int
) -> None:
    made: list[str] = []

    def counted(model: Model, ctx: Context, options: Quant, known: Known) -> Done:
        made.append(options.scheme)
        return by_scheme(model, ctx, options, known)

    monkeypatch.setattr(rivals, "by_scheme", counted)

    def prefer(*given: object) -> bool:
        return True

    monkeypatch.setattr(rivals, "is_better", prefer)
    before = decoder(1.0)
    with ThreadPoolExecutor(1) as executor:
        env = Environment(any_size(get_target("ort-cpu")), executor, calib=FeedList(texts(8)))
        memory = dict[object, object]()
        for goal in goals:
            model = ir.snapshot(before)
            ctx = Context(env, AnalysisManager(model, env), before, memory=memory)
            result = Quant(goal=goal).run(model, ctx)
            assert kernels(model)["MatMulNBits"] == 2
            assert float(result.stats["output_db"]) > 20  # by which it is sent back
    assert made.count("weight") == times
    assert made.count("auto") == 2


@pytest.mark.parametrize(("size", "bits"), [(0.5, "8"), (0.4, "4")])
def test_weights_alone_are_as_small_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, size: float, bits: str
) -> None:
    def prefer(*given: object) -> bool:
        return True

    monkeypatch.setattr(rivals, "is_better", prefer)
    before, model = decoder(1.0), decoder(1.0)
    result = quantize(model, texts(8), size=size)
    assert ir.weight_bytes(model) <= size * ir.weight_bytes(before)
    assert f"gave weights alone {bits} bits" in result.notes[0]
