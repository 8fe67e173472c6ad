"""Weights alone: 8 bits, or float, for the layers that the outputs suffer from most."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import driver, ir
from onnxslim.config import Request
from onnxslim.ir import Array, Model
from onnxslim.passes.check.check import Check
from onnxslim.passes.quant.choose.protected import Limits, steps
from onnxslim.passes.quant.quant import Quant
from onnxslim.pipeline.base import PassResult
from onnxslim.report.record import Report
from onnxslim.runtime.samples import Feed
from tests.quantizing import build, quantize, sqnr_db

TEXT = (
    "net (float[N,64] x) => (float[N,64] y)"
    " { [one] a = MatMul(x, wa) r = Relu(a) [two] b = MatMul(r, wb) s = Relu(b)"
    " [three] y = MatMul(s, wc) }"
)


def net() -> Model:
    """Three layers, of which the middle one has an outlier in each block of its inputs."""
    rng = np.random.default_rng(0)
    rough: Array = rng.normal(size=(64, 64))
    rough[::16] *= 30
    shape, middle = (64, 64), rough.astype(np.float32) / 100
    return build(TEXT, {"wa": shape, "wb": middle, "wc": shape}, 21)


def rows(count: int) -> list[Feed]:
    """Samples of which the inputs that meet the outliers are small."""
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(16, 64)).astype(np.float32)} for _ in range(count)]


def weights_alone(**options: float) -> tuple[PassResult, dict[str, str], float]:
    before, model = net(), net()
    result = quantize(model, rows(8), scheme="weight", weight_bits=2, **options)  # type: ignore[arg-type]
    bits = {row.node: row.action.split()[1] for row in result.layers}
    return result, bits, sqnr_db(before, model, rows(4))


def test_where_the_goal_is_met_nothing_changes() -> None:
    result, bits, db = weights_alone(goal=0.0)
    assert set(bits.values()) == {"2"}
    assert result.stats["output_db"] == pytest.approx(db, abs=2)


def test_a_share_of_the_weights_gets_8_bits_and_the_rest_waits() -> None:
    _, _, plain = weights_alone(goal=0.0)
    _, bits, db = weights_alone(goal=60.0, wide_share=0.4, float_share=1.0)
    assert sorted(bits.values()) == ["2", "2", "8"]
    assert db > plain + 0.5


def test_no_more_than_the_goal_takes() -> None:
    _, _, plain = weights_alone(goal=0.0)
    result, bits, _ = weights_alone(goal=plain + 1, wide_share=1.0)
    assert "8" in bits.values()
    assert "2" in bits.values()
    assert not result.declined


def test_once_all_have_8_bits_some_stay_in_float() -> None:
    result, bits, db = weights_alone(goal=60.0, wide_share=1.0, float_share=0.4)
    assert sorted(bits.values()) == ["8", "8"]
    assert [d.reason for d in result.declined] == ["kept in float: the outputs lose too much by it"]
    assert db > 30


def test_more_and_more_of_them_until_all_are_in_float() -> None:
    noise, sizes = {"a": 0.3, "b": 0.2, "c": 0.1}, dict.fromkeys("abc", 10)
    tried = steps(noise, sizes, 4, Limits(60.0, 1.0, 1.0))
    assert [len(wide) for wide, _ in tried] == [0, 1, 2, 3, 3, 3, 3]
    assert [len(kept) for _, kept in tried] == [0, 0, 0, 0, 1, 2, 3]
    assert all(not kept for _, kept in steps(noise, sizes, 4, Limits(60.0, 0.5, 1.0)))
    assert all(not wide for wide, _ in steps(noise, sizes, 4, Limits(60.0, 0.0, 1.0)))


def test_it_is_sent_back_to_give_more_8_bits() -> None:
    given = Quant(scheme="weight", weight_bits=4)
    milder = given.stricter(PassResult(stats={"output_db": 20.0}))
    assert milder is not None
    assert (milder.goal, milder.wide_share, milder.float_share) == (23.0, 0.4, 0.1)
    assert given.stricter(PassResult()) is None


def compiled(check: Check) -> Report:
    seen = rows(12)
    request = Request(
        passes=(Quant(scheme="weight", weight_bits=4), check),
        calib=seen[:8],
        eval=seen[8:],
        allow_slower=True,
    )
    return driver.compile_model(net(), request)[1]


def test_a_limit_of_the_check_is_met_by_more_bits() -> None:
    loose = compiled(Check())
    assert loose.check is not None
    limit = min(loose.check.sqnr_db.values()) + 1
    tight = compiled(Check(min_sqnr=limit))
    assert tight.check is not None
    assert min(tight.check.sqnr_db.values()) >= limit
    before, after = (
        [row.action.split()[1] for row in report.passes[0].layers] for report in (loose, tight)
    )
    assert set(before) == {"4"}
    assert "8" in after
    assert any("quant was sent back" in note for note in tight.passes[0].notes)


def test_without_samples_of_no_language_model_nothing_is_judged() -> None:
    model = net()
    assert "output_db" not in quantize(model, scheme="weight", weight_bits=2, goal=60.0).stats
    assert not any(
        ir.op(node) == "MatMul" and ir.array(node.inputs[1]) is not None for node in model.graph
    )
