"""A size that is asked for: which layers get 4 bits, 8 or stay in float."""

from __future__ import annotations

import re

import numpy as np
import pytest

from onnxslim import driver, ir
from onnxslim.config import Request
from onnxslim.errors import OptionError
from onnxslim.ir import Array, Model
from onnxslim.passes.check.check import Check
from onnxslim.passes.fold.fold import Fold
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.place import sized
from onnxslim.passes.quant.place.costs import FLOAT, INT8, Costs
from onnxslim.passes.quant.place.mixed import least_noise
from onnxslim.passes.quant.place.mixed_problem import Choice, Problem
from onnxslim.passes.quant.place.placement import Placement
from onnxslim.passes.quant.place.precisions import (
    ALONE,
    ALONE_4,
    BYTES,
    FLOAT_NUMBERS,
    NARROW,
    PRECISIONS,
)
from onnxslim.passes.quant.quant import Quant
from onnxslim.targets import get_target
from tests.quantizing import build, feeds, kernels, quantize, sqnr_db

# The table of choices


def costs() -> Costs:
    """Two layers of 100 numbers, and an addition without a weight."""
    int8 = Choice("int8", 1.0, reads=True, writes=True)
    return Costs(tuple("abc"), Problem(((Choice("float32", 3.0), int8),) * 3), measured=True)


def test_a_choice_more_for_those_that_have_it() -> None:
    price = costs().with_narrow("ab").with_alone(ALONE_4, {"b": 0.5})
    rows = [[choice.precision for choice in row] for row in price.problem.operators]
    assert rows == [
        ["float32", "int8", NARROW],
        ["float32", "int8", NARROW, ALONE_4],
        ["float32", "int8"],
    ]
    assert price.having(ALONE_4) == {"b"}
    narrow = price.problem.operators[0][2]
    assert (narrow.ms, narrow.reads, narrow.writes) == (1.0, True, True)
    assert not price.problem.operators[1][3].reads


def test_choices_and_indices_are_the_same_thing() -> None:
    price = costs().with_narrow("ab").with_alone(ALONE, {"b": 1}).with_alone(ALONE_4, {"b": 1})
    assert price.chosen(()) == (INT8, INT8, INT8)
    assert price.chosen({"c"}, (), {"a"}) == (2, INT8, FLOAT)
    assert price.chosen({"b"}, {"b"}) == (INT8, 3, INT8)
    assert price.chosen({"b"}, {"b"}, {"b"}) == (INT8, 4, INT8)
    assert price.picked((2, 4, 1), ALONE_4, NARROW) == {"a", "b"}


def test_noise_and_bytes_are_those_of_the_table() -> None:
    price = costs().with_narrow("ab").with_alone(ALONE, {"b": 1}).with_alone(ALONE_4, {"b": 1})
    noise, sizes, rounding = {"b": 0.2}, {"a": 100, "b": 100}, {"b": 0.05}
    row = price.with_noise(noise, sizes, rounding, BYTES).operators[1]
    assert [choice.noise for choice in row] == pytest.approx([0, 0.2, 0.25, 0.02, 0.07])
    assert [choice.size for choice in row] == pytest.approx([400, 100, 53.125, 115.625, 64.0625])
    in_float = price.with_noise(noise, sizes, each=FLOAT_NUMBERS).operators[1]
    assert [choice.size for choice in in_float] == [100, 0, 0, 0, 0]
    assert set(BYTES) == set(PRECISIONS)


def test_what_is_worth_its_bytes_keeps_8_bits() -> None:
    price = costs().with_narrow("ab")
    problem = price.with_noise({}, {"a": 100, "b": 100}, {"a": 0.1, "b": 0.2}, BYTES)
    found = least_noise(problem, ms=3.0, size=160)
    assert found is not None
    assert price.picked(found.chosen, NARROW) == {"a"}
    assert least_noise(problem, size=100) is None


# The pass


def net() -> Model:
    """Three layers of the same size, of which the middle one is hard to round: what it reads
    counts very differently."""
    rng = np.random.default_rng(3)
    rough: Array = rng.normal(size=(32, 32, 3, 3)) * np.exp(rng.normal(size=(32, 32, 3, 3)))
    return build(
        "net (float[N,32,8,8] x) => (float[N,32,8,8] y)"
        " { [one] a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(a)"
        " [two] b = Conv <pads = [1, 1, 1, 1]> (r, v) s = Relu(b)"
        " [three] y = Conv <pads = [1, 1, 1, 1]> (s, u) }",
        {"w": (32, 32, 3, 3), "v": rough.astype(np.float32) / 40, "u": (32, 32, 3, 3)},
    )


def share(before: Model, after: Model) -> float:
    return ir.weight_bytes(after) / ir.weight_bytes(before)


@pytest.mark.parametrize("scheme", ["int8", "auto"])
def test_the_layer_that_rounds_worst_keeps_8_bits(scheme: str) -> None:
    before, model = net(), net()
    result = quantize(model, feeds(before, 8), scheme=scheme, size=0.2)
    assert share(before, model) <= 0.2
    kinds = {row.node: row.action.split()[0] for row in result.layers}
    assert kinds == {"one": "4-bit", "two": "int8", "three": "4-bit"}
    assert kernels(model)["QLinearConv"] == 3


def test_a_size_that_int8_keeps_to_changes_nothing() -> None:
    plain, sized = net(), net()
    expected = quantize(plain, feeds(plain, 8), scheme="int8")
    result = quantize(sized, feeds(sized, 8), scheme="int8", size=0.3)
    assert result.stats == expected.stats
    assert "weight_bits" not in result.stats


def test_the_larger_the_size_the_closer() -> None:
    before, found = net(), list[float]()
    samples = feeds(before, 8)
    for size in (0.16, 0.2, 0.25, 0.3):
        model = net()
        quantize(model, samples, scheme="int8", size=size)
        assert share(before, model) <= size
        found.append(sqnr_db(before, model, samples))
    assert found == sorted(found)
    assert found[-1] > found[0] + 6


def test_a_size_out_of_reach_names_the_least_that_is_not() -> None:
    model = net()
    with pytest.raises(OptionError, match=r"size=0\.1: .* ask for size=0\.\d+ or more") as caught:
        quantize(model, feeds(model, 8), scheme="int8", size=0.1)
    least = float(re.findall(r"size=(0\.\d+) or", str(caught.value))[0])
    model = net()
    quantize(model, feeds(model, 8), scheme="int8", size=least)
    assert least - 0.001 < share(net(), model) <= least


def test_without_corrections_the_smallest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sized, "ROUNDS", 0)
    model = net()
    result = quantize(model, feeds(model, 8), scheme="int8", size=0.2)
    assert result.stats["weight_bits"] == "4:100.00%"
    assert share(net(), model) <= 0.2


def test_what_is_not_worth_it_stays_in_float_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: Placement, choices: Choices) -> Costs:
        int8 = Choice("int8", 9.0, reads=True, writes=True)
        rows = tuple((Choice("float32", ms), int8) for ms in (99.0, 1.0, 99.0))
        return Costs(("a", "b", "y"), Problem(rows), measured=True)

    monkeypatch.setattr(Placement, "costs", slow)
    model = net()
    result = quantize(model, feeds(model, 8), scheme="int8", size=0.6, goal=60.0)
    assert [d.node for d in result.declined] == ["two"]
    assert "best of what keeps to the size" in result.declined[0].reason
    assert share(net(), model) <= 0.6


def test_it_is_of_the_model_that_was_given() -> None:
    """Folding copies the weight that two layers share, here for its transpose."""
    square: Array = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    given = build(
        "net (float[N,64] x) => (float[N,64] y)"
        " { a = MatMul(x, w) r = Relu(a) t = Transpose <perm = [1, 0]> (w) y = MatMul(r, t) }",
        {"w": square},
    )
    request = Request(
        passes=(Fold(), Quant(scheme="int8", size=0.4), Check()),
        calib=feeds(given, 8, {"N": 16}),
        allow_slower=True,
    )
    done, report = driver.compile_model(ir.snapshot(given), request)
    assert report.passes[1].stats["weight_bits"] == "4:100.00%"
    assert ir.weight_bytes(done) <= 0.4 * ir.weight_bytes(given)


def test_what_stays_in_float_by_wish_counts_too() -> None:
    model = net()
    with pytest.raises(OptionError, match=r"size=0\.2: .* ask for size=0\.4\d+ or more"):
        quantize(model, feeds(model, 8), scheme="int8", size=0.2, skip=("two",))


def test_other_runtimes_have_no_weights_of_4_bits() -> None:
    model = net()
    with pytest.raises(OptionError, match=r"ask for size=0\.2[56]\d* or more"):
        quantize(model, feeds(model, 8), get_target("openvino"), scheme="int8", size=0.2)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("dynamic", "size=0.2 with scheme=dynamic: sizes are chosen by scheme=auto"),
        ("auto", "size=0.2: which layers get few bits is chosen on samples; give --calib"),
    ],
)
def test_where_no_size_can_be_asked_for(scheme: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        quantize(net(), size=0.2, scheme=scheme)


@pytest.mark.parametrize("size", [0.0, 1.5])
def test_a_size_out_of_range(size: float) -> None:
    with pytest.raises(ValueError, match=rf"size={size:g}, expected 0 to 1"):
        Quant(size=size)


def test_where_no_layer_can_be_quantized_no_other_size_is_named() -> None:
    body = (
        "net (float[N,64] x) => (float[N,32] y)"
        " { d = Cast <to = 11> (x) m = MatMul(d, w) y = Cast <to = 1> (m) }"
    )
    model = build(body, {"w": np.random.default_rng(0).normal(size=(64, 32))})
    with pytest.raises(OptionError, match=r"size=0\.3: no layer can be quantized to fewer bytes"):
        quantize(model, feeds(model, 8), scheme="int8", size=0.3)
