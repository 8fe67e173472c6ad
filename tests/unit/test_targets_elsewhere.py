"""Targets that are another machine's: judged as that computes, and never timed here."""

from __future__ import annotations

import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from onnxslim import driver, ir
from onnxslim.config import Request
from onnxslim.ir import Model
from onnxslim.passes.quant.choose import compare
from onnxslim.passes.quant.place import placement
from onnxslim.passes.quant.quant import Quant
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import FeedList
from onnxslim.targets import Target, get_target, ort_cpu
from tests.quantizing import any_size, build, feeds, operators, quantize, sqnr_db


@pytest.mark.parametrize(
    ("machine", "flags", "here"),
    [
        ("x86_64", {"avx2", "avx512_vnni"}, "ort-cpu-vnni"),
        ("x86_64", {"avx2"}, "ort-cpu-avx2"),
        ("arm64", set[str](), "ort-cpu-arm"),
    ],
)
def test_of_the_processors_one_is_here(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: set[str], here: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(ort_cpu, "_flags", lambda: frozenset(flags))
    names = ("ort-cpu-vnni", "ort-cpu-avx2", "ort-cpu-arm", "tensorrt", "openvino", "qnn")
    assert [name for name in names if get_target(name).here] == [here]
    assert get_target("ort-cpu").here


def _elsewhere() -> Target:
    return replace(any_size(get_target("ort-cpu-vnni")), elsewhere=True)


def test_what_would_saturate_here_is_judged_as_the_target_adds_and_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(placement, "kernel_times", refuse)
    monkeypatch.setattr(placement, "interleaved_latency", refuse)
    rng = np.random.default_rng(0)
    model = build(
        "net (float[N,16,6,6] x) => (float[N,40] y) { a = Conv <kernel_shape = [3, 3]> (x, wc)"
        " r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, wm) }",
        {
            "wc": rng.uniform(0.6, 1, (32, 16, 3, 3)).astype(np.float32),
            "wm": rng.uniform(0.6, 1, (32, 40)).astype(np.float32),
        },
    )
    samples = [{"x": rng.uniform(0.6, 1, (2, 16, 6, 6)).astype(np.float32)} for _ in range(4)]
    before = ir.snapshot(model)
    result = quantize(model, samples, _elsewhere(), equalize="off")
    assert result.stats["output_db"] > 35  # type: ignore[operator]
    assert result.stats["fused_kernels"] == 2 + 1  # and the pool: seen in the optimized graph
    assert not result.declined
    assert operators(model)["com.microsoft::MatMulIntegerToFloat"] == 1
    assert sqnr_db(before, model, samples, "exact") > 35


def test_without_a_clock_weights_alone_are_for_outputs_that_miss_the_goal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Known:
        """Knows how good two models are."""

        def __init__(self, *args: object) -> None:
            pass

        def sqnr_db(self, model: Model) -> float:
            return 30.0 if model is other else 20.0

    model = build("net (float[N,4] x) => (float[N,4] y) { y = Relu(x) }", {})
    one, other = ir.snapshot(model), ir.snapshot(model)
    monkeypatch.setattr(compare, "Judge", Known)
    with ThreadPoolExecutor(1) as executor:
        env = Environment(_elsewhere(), executor, calib=FeedList(feeds(model)))
        better = partial(compare.is_better, model, one, other, feeds(model), env=env)
        assert better(goal_db=25.0)
        assert not better(goal_db=12.0)


def test_the_report_has_no_latency_of_another_machine() -> None:
    model = build("net (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", {"w": (64, 64)})
    samples = feeds(model, 8)
    request = Request(passes=(Quant(),), calib=samples[:4], eval=samples[4:], target="tensorrt")
    _, report = driver.compile_model(model, request)
    assert report.passes[0].stats["int8_layers"] == 1
    assert report.latency_ms.before is None
    assert any("'tensorrt' is not the runtime of this machine" in note for note in report.notes)
