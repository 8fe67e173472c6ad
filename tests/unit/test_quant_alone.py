"""Layers whose weight alone is integers, where an int8 input costs the outputs too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, Editor
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.search import Search
from onnxslim.passes.quant.place import placement
from onnxslim.passes.quant.place.costs import Costs
from onnxslim.passes.quant.place.placement import Placement
from onnxslim.passes.quant.place.precisions import ALONE, ALONE_4, FLOAT, INT8
from onnxslim.passes.quant.place.protection import Protection
from onnxslim.passes.quant.weight_only.alone import possible_alone, write_alone
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import open_session
from onnxslim.targets import get_target
from tests.quantizing import any_size, build, kernels, quantize, sqnr_db
from tests.unit.test_quant_protection import Additive, costs, named

TEXT = (
    "net (float[N,64] x) => (float[N,96] y) { [up] h = MatMul(x, wa) r = Tanh(h)"
    " [mid] z = MatMul(r, wm) [head] y = MatMul(z, wb) }"
)
SHAPES = {"wa": (64, 128), "wm": (128, 128), "wb": (128, 96)}


def rows(count: int) -> list[Feed]:
    """Samples in which some rows are so large that a range which holds them leaves others none."""
    rng = np.random.default_rng(0)
    found: list[Feed] = []
    for _ in range(count):
        x: Array = rng.normal(size=(16, 64)).astype(np.float32)
        x[::8] *= 1000
        found.append({"x": x})
    return found


def test_what_a_range_ruins_keeps_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def dear(self: Placement, choices: Choices) -> Costs:
        price = self.costs(choices)
        return price.with_alone(ALONE, dict.fromkeys(price.names, 1e3))

    monkeypatch.setattr(Placement, "with_alone", dear)
    model = build(TEXT, SHAPES)
    result = quantize(model, rows(12))
    actions = {row.node: row.action for row in result.layers}
    assert actions["up"].startswith("weight-only, 8 bits in blocks of 32")
    assert "int8 weights" in actions["mid"]
    assert kernels(model)["MatMulNBits"] == 1
    assert result.stats["output_db"] > 20  # type: ignore[operator]
    assert any("com.microsoft::MatMulNBits" in note for note in result.notes)


@pytest.mark.parametrize("name", ["ort-cpu-vnni", "ort-cpu-avx2", "ort-cpu-arm"])
def test_of_another_processor_costs_are_assumed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError

    seen = _watched(monkeypatch)
    monkeypatch.setattr(placement, "kernel_times", refuse)
    monkeypatch.setattr(placement, "interleaved_latency", refuse)
    model = build(TEXT, SHAPES)
    target = replace(any_size(get_target(name)), elsewhere=True)
    result = quantize(model, rows(12), target)
    assert seen[0].having(ALONE) == seen[0].having(ALONE_4) == {"h", "z", "y"}
    for row in seen[0].problem.operators:
        ms = {choice.precision: choice.ms for choice in row}
        assert min(ms, key=ms.__getitem__) == INT8
        assert (ms[ALONE] < ms[ALONE_4] < ms[FLOAT]) == (name != "ort-cpu-avx2")
    assert result.stats["output_db"] > 20  # type: ignore[operator]
    assert kernels(model)["MatMulNBits"] == (2 if name == "ort-cpu-avx2" else 0)


def _watched(monkeypatch: pytest.MonkeyPatch) -> list[Costs]:
    """What costs with weights alone will be found."""
    seen: list[Costs] = []
    own = Placement.with_alone

    def watched(self: Placement, choices: Choices) -> Costs:
        seen.append(own(self, choices))
        return seen[-1]

    monkeypatch.setattr(Placement, "with_alone", watched)
    return seen


def test_nothing_is_assumed_here_nor_of_runtimes_without_codes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def untimed(*args: object) -> list[object]:
        return []

    seen = _watched(monkeypatch)
    monkeypatch.setattr(placement, "kernel_times", untimed)
    for target in (any_size(get_target("ort-cpu")), get_target("openvino")):
        quantize(build(TEXT, SHAPES), rows(12), target)
        assert seen
        assert not any(costs.having(ALONE) | costs.having(ALONE_4) for costs in seen)
        seen.clear()


def test_standard_operators_alone_have_no_form_for_it() -> None:
    model = build(TEXT, SHAPES)
    result = quantize(model, rows(12), portable=True)
    assert not kernels(model)["MatMulNBits"]
    assert any("float" in d.reason or "dB" in d.reason for d in result.declined)


def test_rows_of_many_sizes_have_no_range_in_a_run_either() -> None:
    text = (
        "net (float[N,64] x) => (float[N,96] y) { h = MatMul(x, wa) r = Tanh(h) y = MatMul(r, wb) }"
    )
    model = build(text, {"wa": (64, 128), "wb": (128, 96)})
    before, samples = ir.snapshot(model), rows(12)
    result = quantize(model, samples, float_share=0.0, goal=60.0)
    assert kernels(model)["MatMulNBits"] == 2
    assert sqnr_db(before, model, samples) > 20
    assert "no fixed ranges" in result.notes[0]


def test_only_products_with_large_constants_can_be_written() -> None:
    model = build(
        "net (float[N,64] x, float[N,3,8,8] z) => (float[N,64] y, float[N,8,6,6] q, float[N,2] s)"
        " { y = MatMul(x, wa) s = MatMul(x, wb) q = Conv(z, wc) }",
        {"wa": (64, 64), "wb": (64, 2), "wc": (8, 3, 3, 3)},
    )
    assert possible_alone(model, ["y", "q", "s"]) == {"y"}
    assert possible_alone(model, ["q"]) == frozenset()


def test_the_product_is_close() -> None:
    model = build(TEXT, SHAPES)
    feed = {"x": rows(1)[0]["x"][1:8]}
    exact = open_session(ir.snapshot(model)).run(feed)["y"]
    done = write_alone(Editor(model), {"z"})
    ir.verify(model)
    assert [row.node for row in done] == ["mid"]
    y = open_session(model).run(feed)["y"]
    assert np.abs(y - exact).max() < 0.02 * np.abs(exact).max()
    assert np.any(y != exact)


def protect(alone_ms: Sequence[float], share: float) -> Choices:
    """A chain of two, of which the first is noisy and 10 ms in float, with weights alone or not."""
    model = Additive(named([1e-2, 1e-4]))
    price = costs([10, 2]).with_alone(ALONE, named(alone_ms))
    found = Protection(
        cast("Search", _Eased(model.noise)), price, model.noise, {"0": 9, "1": 1}, share
    )
    return found.protect(Choices(), 25.0)


class _Eased(Additive):
    """What keeps its input in float makes a tenth of the noise."""

    def score(self, choices: Choices) -> float:
        kept = {n: v * (0.1 if n in choices.alone else 1.0) for n, v in self.noise.items()}
        return Additive(kept).score(replace(choices, excluded=choices.excluded - choices.alone))


def test_the_weight_alone_where_that_is_faster_than_float() -> None:
    assert protect([3.0], 1.0) == Choices(excluded=frozenset("0"), alone=frozenset("0"))
    assert protect([30.0], 1.0) == Choices(excluded=frozenset("0"))


@pytest.mark.parametrize(("rounding", "coarse"), [(1e-4, {"0"}), (1e-1, set[str]())])
def test_4_bits_where_they_are_faster_and_quiet_enough(rounding: float, coarse: set[str]) -> None:
    model, sizes = Additive(named([1e-2, 1e-4])), {"0": 9, "1": 1}
    price = costs([10, 2]).with_alone(ALONE, {"0": 3.0}).with_alone(ALONE_4, {"0": 2.0})
    search = cast("Search", _Eased(model.noise))
    found = Protection(search, price, model.noise, sizes, 1.0, {"0": rounding})
    chosen = found.protect(Choices(), 25.0)
    assert chosen.alone == {"0"}
    assert chosen.coarse == coarse


def test_codes_of_4_bits_are_fitted_to_what_the_layer_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cheap(self: Placement, choices: Choices) -> Costs:
        price = self.costs(choices)
        return price.with_alone(ALONE_4, {"h": 1e-3})

    monkeypatch.setattr(Placement, "with_alone", cheap)
    model = build(TEXT, SHAPES)
    result = quantize(model, rows(12))
    actions = {row.node: row.action for row in result.layers}
    assert actions["up"] == "weight-only, 4 bits in blocks of 32, second-order rounding"
    assert result.stats["output_db"] > 12  # type: ignore[operator]


def test_a_bound_on_what_stays_in_float_does_not_bound_it() -> None:
    assert protect([30.0], 0.0).alone == {"0"}
    assert protect([], 0.0) == Choices()
