"""Which nodes stay in float: measured one by one, few of them, and milder when the check fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnxslim import driver, ir
from onnxslim.analyses.sensitivity import Sensitivity, sensitivities
from onnxslim.config import Request
from onnxslim.ir import Array, Model
from onnxslim.passes.check.check import Check
from onnxslim.passes.quant.choices import Choices
from onnxslim.passes.quant.choose.search import Search, weight_sizes
from onnxslim.passes.quant.place import protection
from onnxslim.passes.quant.place.placement import Placement
from onnxslim.passes.quant.quant import Quant
from onnxslim.passes.quant.rewrite.apply import plan_for
from onnxslim.passes.quant.rewrite.plan import Plan
from onnxslim.passes.quant.static import facts_of
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.report.record import Report
from onnxslim.runtime.samples import FeedList
from onnxslim.targets import Target, get_target
from tests.quantizing import build, feeds, quantize

OUTLIER = (
    "net (float[N,64] x) => (float[N,64] y) { [calm] a = MatMul(x, wa) b = Tanh(a)"
    " [wild] c = MatMul(b, wb) d = Tanh(c) [last] y = MatMul(d, wc) }"
)


def outlier() -> Model:
    """The input of `wild` is calm, but its result has one huge column, which Tanh cuts off."""
    return build(OUTLIER, {"wa": (64, 64), "wb": _wild(), "wc": (64, 64)})


def _wild() -> Array:
    rng = np.random.default_rng(3)
    weight = (rng.normal(size=(64, 64)) / 8).astype(np.float32)
    weight[:, 0] *= 300
    return weight


# The analysis


def test_the_order_is_that_of_the_outputs_noise_not_of_the_local_one() -> None:
    local = {"noisy": 20.0, "loud": 40.0, "quiet": 30.0}
    alone = {"noisy": 50.0, "loud": 25.0, "quiet": 45.0}
    found = sensitivities(local, alone.__getitem__, 10.0, lambda: 0.0)
    assert [(s.name, s.db, s.measured) for s in found] == [
        ("loud", 25.0, True),
        ("quiet", 45.0, True),
        ("noisy", 50.0, True),
    ]


def test_what_there_is_no_time_for_is_predicted_by_the_median_gain() -> None:
    local = {"d": 33.0, "a": 10.0, "b": 20.0, "c": 30.0}
    times = iter([0.0, 1.0, 2.0, 99.0])
    alone = {"a": 40.0, "b": 30.0, "c": 50.0}  # gains of 30, 10 and 20 dB
    found = sensitivities(local, alone.__getitem__, 10.0, times.__next__)
    assert [(s.name, s.db, s.measured) for s in found] == [
        ("b", 30.0, True),
        ("a", 40.0, True),
        ("c", 50.0, True),
        ("d", 53.0, False),
    ]


# The search


@pytest.mark.parametrize("goal", [20.0, 30.0, 36.0])
def test_no_node_stays_in_float_that_the_goal_does_not_need(goal: float) -> None:
    model = outlier()
    before, samples = ir.snapshot(model), feeds(model, 8, {"N": 4})
    result = quantize(model, samples, scheme="int8", goal=goal, float_share=0.9)
    kept = [d.node for d in result.declined]
    assert float(result.stats["output_db"]) >= goal
    for node in kept:
        fewer = ir.snapshot(before)
        skip = tuple(other for other in kept if other != node)
        found = quantize(fewer, samples, scheme="int8", goal=0.0, skip=skip)
        assert float(found.stats["output_db"]) < goal


def _answer(faster: bool) -> Callable[..., bool]:
    def takes_at_most(*_: object) -> bool:
        return faster

    return takes_at_most


FREER: dict[str, dict[str, Any]] = {
    "free": {},
    "slow": {"faster": False},
    "many": {"free": 100},
    "large": {"less": 0.3},
}


@pytest.mark.parametrize("name", FREER)
def test_of_few_weights_more_stay_in_float_where_the_model_is_still_small_and_fast(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: dict[str, Any] = {"faster": True, "free": 65536, "less": 0.9, **FREER[name]}
    monkeypatch.setattr(Placement, "takes_at_most", _answer(limits["faster"]))
    monkeypatch.setattr(protection, "FREE", limits["free"])
    monkeypatch.setattr(protection, "LESS", limits["less"])
    model = outlier()
    samples, target = feeds(model, 8, {"N": 4}), get_target("ort-cpu-avx2")  # 7 bits everywhere
    result = quantize(model, samples, target, scheme="int8", goal=40.0)
    assert (result.declined != ()) == (name == "free")
    assert (float(result.stats["output_db"]) >= 40) == (name == "free")


def seven_bits() -> Target:
    """Timed here, whatever this processor is."""
    return replace(get_target("ort-cpu-avx2"), elsewhere=False)


@pytest.mark.parametrize("fast", [True, False])
def test_of_few_weights_more_stay_in_float_for_the_aim_where_that_takes_no_longer(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Placement, "takes_at_most", _answer(fast))
    model, target = outlier(), seven_bits()
    samples = feeds(model, 8, {"N": 4})
    result = quantize(model, samples, target, scheme="auto", goal=5.0, aim=36.0)
    reached = float(result.stats["output_db"])
    assert reached >= 36 if fast else 5 <= reached < 36


@pytest.mark.parametrize(("takes", "bought"), [(1.01, True), (1.14, True), (1.2, False)])
def test_the_clock_says_whether_the_aim_is_bought_and_never_for_more_than_it_is_worth(
    takes: float, bought: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All weights may stay in float, and the profile has them too dear."""

    def clock(self: Placement, tried: object, choices: object, times: float) -> bool:
        return takes <= times

    def too_dear(
        self: protection.Protection, choices: Choices, found: Choices, *_: object
    ) -> Choices:
        return found

    monkeypatch.setattr(Placement, "takes_at_most", clock)
    monkeypatch.setattr(protection, "FREE", 0)  # nothing by being few
    monkeypatch.setattr(protection.Protection, "quieter", too_dear)
    model, target = outlier(), seven_bits()
    options: dict[str, Any] = {"goal": 5.0, "aim": 36.0, "float_share": 0.7}
    result = quantize(model, feeds(model, 8, {"N": 4}), target, scheme="auto", **options)
    assert (float(result.stats["output_db"]) >= 36) == bought


def test_none_stay_in_float_where_none_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Placement, "takes_at_most", _answer(True))
    model, target = outlier(), get_target("ort-cpu-avx2")
    options: dict[str, Any] = {"scheme": "int8", "goal": 40.0, "float_share": 0.0}
    assert not quantize(model, feeds(model, 8, {"N": 4}), target, **options).declined


def test_a_weight_that_two_layers_share_counts_once() -> None:
    model = build(
        "net (float[N,8] x) => (float[N,8] y) { a = MatMul(x, w) b = Tanh(a) c = MatMul(b, w)"
        " d = Tanh(c) y = MatMul(d, v) }",
        {"w": (8, 8), "v": (8, 8)},
    )
    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor, calib=FeedList(feeds(model)))
        facts, _ = facts_of(model, Context(env, AnalysisManager(model, env), model), Choices())
    plan = plan_for(model, env.target, facts, Choices())
    assert weight_sizes(plan) == {"a": 32, "c": 32, "y": 64}
    one, other = (Choices(excluded=frozenset({name})) for name in "ay")
    assert protection.with_shared(plan, one).excluded == {"a", "c"}
    assert protection.with_shared(plan, other) == other


# The budget


def test_milder_is_a_higher_goal_until_nothing_is_left() -> None:
    first = Quant()
    second = first.stricter(PassResult(stats={"output_db": 20.04}))
    assert second == Quant(goal=23.0, float_share=0.1)
    assert second is not None
    assert second.stricter(PassResult(stats={"output_db": 22.0})) == Quant(
        goal=26.0, float_share=0.2
    )
    assert Quant(goal=30.0, float_share=1.0).stricter(PassResult(stats={"output_db": 22.0})) is None
    assert Quant(goal=59.0).stricter(PassResult(stats={"output_db": 59.5})) is None
    assert Quant(scheme="dynamic").stricter(PassResult(stats={"int8_layers": 3})) is None


def test_between_is_halfway_until_that_is_near() -> None:
    failed, passed = PassResult(stats={"output_db": 21.0}), Quant(goal=24.0, float_share=0.1)
    middle = Quant().between(failed, passed)
    assert middle == Quant(goal=22.5, float_share=0.1)
    assert middle is not None
    nearer = middle.between(PassResult(stats={"output_db": 22.6}), passed)
    assert nearer == Quant(goal=23.3, float_share=0.1)
    assert Quant(goal=23.3).between(PassResult(stats={"output_db": 23.4}), passed) is None
    assert Quant(scheme="dynamic").between(PassResult(), passed) is None


def _compiled(passes: Sequence[Quant | Check]) -> tuple[Model, Report]:
    model = outlier()
    samples = feeds(model, 24, {"N": 4})
    request = Request(
        passes=tuple(passes), calib=samples[:12], eval=samples[12:], allow_slower=True
    )
    return driver.compile_model(model, request)


def test_the_limit_of_the_check_is_met_by_layers_in_float() -> None:
    _, loose = _compiled([Quant(scheme="int8"), Check()])
    assert loose.check is not None
    reached = min(loose.check.sqnr_db.values())
    limit = reached + 3
    _, tight = _compiled([Quant(scheme="int8"), Check(min_sqnr=limit)])
    assert tight.check is not None
    assert min(tight.check.sqnr_db.values()) >= limit
    assert any("quant was sent back" in note for note in tight.passes[0].notes)
    assert 0 < int(tight.passes[0].stats["int8_layers"]) < int(loose.passes[0].stats["int8_layers"])


def test_a_pass_that_is_sent_back_measures_single_nodes_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured, asked = Search.sensitivities, list[float]()

    def counted(self: Search, plan: Plan, choices: Choices) -> list[Sensitivity]:
        asked.append(1)
        return measured(self, plan, choices)

    monkeypatch.setattr(Search, "sensitivities", counted)
    _, loose = _compiled([Quant(scheme="int8"), Check()])
    assert loose.check is not None
    assert not asked
    limit = min(loose.check.sqnr_db.values()) + 3
    _, tight = _compiled([Quant(scheme="int8"), Check(min_sqnr=limit)])
    assert any("was sent back" in note for note in tight.passes[0].notes)
    assert len(asked) == 1
