"""Where int8 pays: times of kernels by operator, costs of borders, and what stays in float."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from onnxslim import ir
from onnxslim.analyses.attribution import attribute, name_by_outputs
from onnxslim.ir import Model
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.place import placement
from onnxslim.passes.quant.place.costs import (
    FLOAT,
    INT8,
    Costs,
    Times,
    Work,
    assumed_alone_ms,
    assumed_times,
    costs_of,
    from_arrays,
    measured_times,
    to_arrays,
)
from onnxslim.passes.quant.place.mixed import least_time
from onnxslim.passes.quant.rewrite.regions import find_regions
from onnxslim.pipeline.base import PassResult
from onnxslim.runtime.kernels import Kernel, kernel_times
from onnxslim.runtime.latency import LatencyResult
from onnxslim.targets import get_target
from onnxslim.targets.assumed import ASSUMED
from tests.quantizing import any_size, build, feeds, quantize

CONV = "Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
NET = (
    f"net (float[1,16,12,12] x) => (float[1,16,12,12] y, float[1,16,12,12] t) {{"
    f" [a] a = {CONV} (x, wa) r = Relu(a) [b] b = {CONV} (r, wb) s = Add(b, r)"
    f" [c] y = {CONV} (s, wc) t = Softmax(s) }}"
)
WEIGHTS: dict[str, Sequence[int]] = {
    "wa": (16, 16, 3, 3),
    "wb": (16, 16, 3, 3),
    "wc": (16, 16, 3, 3),
}
OPERATORS = {"a": "Conv", "b": "Conv", "s": "Add", "y": "Conv"}


def net() -> Model:
    model = build(NET, WEIGHTS)
    name_by_outputs(model)
    return model


def kernel(name: str, op: str, inputs: str, output: str, ms: float) -> Kernel:
    node = ir.Node("", op, [ir.Value(name=i) for i in inputs.split()], name=name)
    node.outputs[0].name = output
    return Kernel(node, ms)


# Attribution


def test_a_kernel_belongs_to_the_operator_that_its_name_begins_with() -> None:
    kernels = [
        kernel("ReorderInput", "ReorderInput", "x", "t0", 1),
        kernel("r_nchwc", "Conv", "t0", "t1", 2),
        kernel("s_nchwc", "Conv", "t1 t1", "t2", 4),  # b and the Add in one
        kernel("ReorderOutput", "ReorderOutput", "t2", "s", 8),
        kernel("t", "Softmax", "s", "t", 16),
        kernel("y_token_7", "QLinearConv", "s", "y.quantized", 32),
        kernel("DequantizeLinear_y", "DequantizeLinear", "y.quantized", "y", 64),
    ]
    found = attribute(kernels, net(), OPERATORS)
    assert found.own == {"a": 2, "b": 4, "y": 32}
    assert found.converting == {"": 1, "s": 8, "y": 64}
    assert found.after == {"s": 16}
    assert found.total == sum(kernel.ms for kernel in kernels)


def test_a_name_counts_as_a_word() -> None:
    kernels = [
        kernel("add_7", "Add", "s", "t9", 1),  # not `a`
        kernel("y/MatMulAddFusion", "Gemm", "s", "t8", 2),
        kernel("fused b", "FusedConv", "r", "t7", 4),
    ]
    found = attribute(kernels, net(), OPERATORS)
    assert found.own == {"y": 2, "b": 4}
    assert found.after == {"": 1}


def test_every_linear_operator_has_a_time_in_float_and_in_int8() -> None:
    model, samples = net(), feeds(net())
    in_int8 = ir.snapshot(model)
    quantize(in_int8, samples, scheme="int8")
    for made in (model, in_int8):
        kernels = kernel_times(made, samples[0], seconds=0.05)
        found = attribute(kernels, model, OPERATORS)
        assert {"a", "b", "y"} <= found.own.keys()
        assert found.total == pytest.approx(sum(kernel.ms for kernel in kernels))


# Costs


def _costs(
    float_ms: Mapping[str, float],
    int8_ms: Mapping[str, float],
    after: Mapping[str, float] | None = None,
) -> Costs:
    model = net()
    regions = find_regions(model, any_size(get_target("ort-cpu-vnni")))
    return costs_of(regions, Times(float_ms, int8_ms, after or {}), lambda _: 2304)


def test_the_costs_are_those_of_operators_and_of_the_tensors_between_them() -> None:
    costs = _costs(dict.fromkeys("absy", 1.0), dict.fromkeys("absy", 0.5))
    assert costs.names == ("a", "b", "s", "y")
    assert not costs.measured
    whole = costs.chosen(())
    assert whole == (INT8,) * 4
    assert costs.problem.ms((FLOAT,) * 4) == pytest.approx(4 * 1.05, rel=0.05)
    to_int8, to_float = (9e-3 + ns * 2304 / 1e6 for ns in (0.60, 0.45))
    borders = to_int8 + 2 * to_float  # of x; of s for the Softmax, and of y
    assert costs.problem.ms(whole) == pytest.approx(2.0 + borders, rel=0.05)
    assert costs.chosen({"b"}) == (INT8, FLOAT, INT8, INT8)
    assert costs.floats(costs.chosen({"b"})) == {"b"}


def test_what_is_worth_it_between_int8_neighbours_only_goes_with_them() -> None:
    slow = {"a": 9.0, "b": 9.0, "s": 0.1, "y": 9.0}
    costs = _costs(dict.fromkeys("absy", 1.0), slow)
    found = least_time(costs.problem)
    assert found is not None
    assert costs.floats(found.chosen) == {"a", "b", "s", "y"}


def test_what_follows_is_a_cost_of_the_border_where_it_is_read_in_float() -> None:
    equal = dict.fromkeys("absy", 1.0)
    before, after = _costs(equal, equal), _costs(equal, equal, after={"s": 5.0})
    whole = before.chosen(())
    assert after.problem.ms(whole) - before.problem.ms(whole) == pytest.approx(5, rel=0.05)
    in_float = before.chosen({"s"})
    assert after.problem.ms(in_float) == pytest.approx(before.problem.ms(in_float))


def test_measured_times_count_layouts_and_what_integers_absorb() -> None:
    float_kernels = [
        kernel("r_nchwc", "Conv", "x", "t1", 2),
        kernel("ReorderOutput", "ReorderOutput", "t1", "r", 1),
        kernel("t", "Softmax", "r", "t", 3),
    ]
    int8_kernels = [
        kernel("a_token_1", "QLinearConv", "x", "t1", 1),
        kernel("DequantizeLinear_r", "DequantizeLinear", "t1", "r", 0.5),
        kernel("t", "Softmax", "r", "t", 4),
    ]
    profiles = [attribute(some, net(), OPERATORS) for some in (float_kernels, int8_kernels)]
    times = measured_times(profiles[0], profiles[1], OPERATORS)
    assert times.float_ms["a"] == 3
    assert times.int8_ms["a"] == 1
    assert times.after_ms["a"] == 1
    assert times.conversions_ms == 0.5


def test_without_measurements_the_size_of_the_work_tells() -> None:
    work = Work({"a": 50_000_000, "b": 100_000_000}, {"a": 1000, "b": 1000})
    times = assumed_times(work, ASSUMED)
    assert not times.measured
    assert times.float_ms["b"] / times.float_ms["a"] == pytest.approx(2, rel=0.01)
    assert 2.5 < times.float_ms["a"] / times.int8_ms["a"] < 3.5
    for bits in (8, 4):
        alone = assumed_alone_ms(work, ASSUMED, bits)
        assert times.int8_ms["a"] < alone["a"] < times.float_ms["a"]


# Placement


def _profile(float_ms: Mapping[str, float], int8_ms: Mapping[str, float]) -> Callable[..., Any]:
    """A profiler that knows what each operator takes."""

    def profiled(model: Model, *_: object) -> list[Kernel]:
        ops = [ir.op(node) for node in model.graph]
        table = int8_ms if "QuantizeLinear" in ops else float_ms
        convert = [kernel("Q", "QuantizeLinear", "x", "q", 0.2)] if table is int8_ms else []
        return [
            *convert,
            *(kernel(name, OPERATORS[name], "x", name, ms) for name, ms in table.items()),
        ]

    return profiled


def _race(ratio: float, asked: list[int]) -> Callable[..., LatencyResult]:
    def race(*_: object, **__: object) -> LatencyResult:
        asked.append(1)
        return LatencyResult(((1.0, ratio),) * 20)

    return race


@pytest.fixture
def asked() -> list[int]:
    return []


def _placed(
    monkeypatch: pytest.MonkeyPatch,
    slow: str,
    ratio: float,
    asked: list[int],
    cache: Path | None = None,
) -> PassResult:
    float_ms = dict.fromkeys(OPERATORS, 1.0)
    int8_ms = {name: 5.0 if name == slow else 0.3 for name in OPERATORS}
    monkeypatch.setattr(placement, "kernel_times", _profile(float_ms, int8_ms))
    monkeypatch.setattr(placement, "interleaved_latency", _race(ratio, asked))
    model = net()
    return quantize(model, feeds(model), cache=cache)


def test_times_can_be_kept_in_a_file() -> None:
    times = Times({"a": 1.0, "b": 2.0}, {"a": 0.5}, {"b": 0.25}, 0.125)
    read = from_arrays(to_arrays(times))
    assert read.measured
    assert (read.float_ms, read.conversions_ms) == (times.float_ms, 0.125)
    assert read.int8_ms == {"a": 0.5, "b": 0.0}
    assert read.after_ms == {"a": 0.0, "b": 0.25}


def test_a_second_run_with_the_same_cache_decides_alike(
    monkeypatch: pytest.MonkeyPatch, asked: list[int], tmp_path: Path
) -> None:
    first = _placed(monkeypatch, "b", 0.8, asked, tmp_path)
    again = _placed(monkeypatch, "none", 2.0, asked, tmp_path)
    assert first.layers == again.layers
    assert len(asked) == 1
    assert len(_placed(monkeypatch, "none", 2.0, asked).layers) == 3


def test_what_is_slower_in_int8_stays_in_float_and_says_why(
    monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    result = _placed(monkeypatch, "b", 0.8, asked)
    reasons = {declined.node: declined.reason for declined in result.declined}
    assert reasons["b"].startswith("in int8 it takes 5.")  # to the 5 % of the costs
    assert reasons["b"].endswith(" times as long here")
    assert {row.node for row in result.layers} == {"a", "y"}
    (note,) = (n for n in result.notes if n.startswith("int8:"))
    assert note.startswith("int8: 2 of 3 Conv; b float: in int8 it takes 5.")


def test_what_saves_less_than_its_conversions_cost_stays_in_float(
    monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    float_ms = {"a": 5.0, "b": 0.05, "s": 0.05, "y": 5.0}
    int8_ms = {"a": 1.0, "b": 0.049, "s": 5.0, "y": 1.0}
    monkeypatch.setattr(placement, "kernel_times", _profile(float_ms, int8_ms))
    monkeypatch.setattr(placement, "interleaved_latency", _race(0.8, asked))
    model = net()
    result = quantize(model, feeds(model))
    reasons = {declined.node: declined.reason for declined in result.declined}
    assert reasons == {"b": "in int8 it saves less time here than the conversions around it cost"}


def test_a_choice_that_is_no_faster_as_a_whole_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    result = _placed(monkeypatch, "b", 0.99, asked)
    assert {row.node for row in result.layers} == {"a", "b", "y"}
    assert len(asked) == len(placement.MARGINS)


def test_both_are_timed_to_know_by_how_much_one_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    base, slower = Choices(), Choices(excluded=frozenset({"a"}))
    ms = {base: 1.0, slower: 1.2}

    def race(models: Sequence[Choices], *_: object, **__: object) -> LatencyResult:
        return LatencyResult((tuple(ms[model] for model in models),) * 20)

    def measured(_kind: str, _models: object, _feed: object, _env: object, make: Any) -> Any:
        return make()

    def twin(_self: object, choices: Choices) -> Choices:
        return choices

    monkeypatch.setattr(placement, "interleaved_latency", race)
    monkeypatch.setattr(placement, "remembered", measured)
    monkeypatch.setattr(placement.Placement, "_twin", twin)

    def takes_at_most(times: float, here: bool) -> bool:
        env = SimpleNamespace(target=SimpleNamespace(here=here), calib=[{}], threads=1)
        known = placement.Placement(cast("Any", None), cast("Any", SimpleNamespace(env=env)))
        return known.takes_at_most(slower, base, times)

    assert takes_at_most(1.21, here=True)
    assert not takes_at_most(1.1, here=True)
    assert takes_at_most(1.1, here=False)  # nothing can be timed for another machine


def test_nothing_is_tried_where_all_are_faster_in_int8(
    monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    result = _placed(monkeypatch, "none", 0.5, asked)
    assert {row.node for row in result.layers} == {"a", "b", "y"}
    assert not asked


@pytest.mark.parametrize("options", [{"scheme": "int8"}, {"target": get_target("openvino")}])
def test_only_auto_leaves_in_float_for_speed_and_only_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    def never(*_: object, **__: object) -> list[Kernel]:
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr(placement, "kernel_times", never)
    model = net()
    assert len(quantize(model, feeds(model), **options).layers) == 3


def test_where_the_profile_tells_nothing_all_is_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "kernel_times", _profile({}, {}))
    model = net()
    assert len(quantize(model, feeds(model)).layers) == 3
