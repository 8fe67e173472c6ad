"""The pass on small models: what it removes, repairs, declines and says, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.axes import axis_map
from onnxslim.errors import OptionError
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.prune.budget import steps
from onnxslim.passes.prune.prune import Prune
from onnxslim.passes.prune.score import Consumer, greedy
from onnxslim.pipeline.analysis import AnalysisManager, Aspect
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.runtime.latency import LatencyResult
from onnxslim.runtime.samples import Feed, FeedList
from onnxslim.runtime.session import open_session
from onnxslim.targets import get_target
from tests.prunable import NETWORKS
from tests.quantizing import build, feeds

MLP = """g (float[N,24] x) => (float[N,8] y) {
  a = Gemm (x, w1, b1)  r = Relu (a)  b = MatMul (r, w2)  c = Add (b, b2)  s = Tanh (c)
  y = Gemm (s, w3, b3) }"""


def mlp(opset: int = 17) -> Model:
    """Layers whose hidden units are mixtures of few signals, so that most can be made up for."""
    rng = np.random.default_rng(3)
    first = rng.normal(size=(24, 6)) @ rng.normal(size=(6, 64)) / 5
    second = rng.normal(size=(64, 6)) @ rng.normal(size=(6, 48)) / 30
    weights: dict[str, Sequence[int] | Array] = {
        "w1": first.astype(np.float32), "b1": (64,), "w2": second.astype(np.float32), "b2": (48,),
        "w3": (48, 8), "b3": (8,),
    }  # fmt: skip
    return build(MLP, weights, opset)


def prune(
    model: Model, calib: Sequence[Feed] | None = None, target: str = "ort-cpu", **options: object
) -> PassResult:
    """One run of the pass in place."""
    with ThreadPoolExecutor(1) as executor:
        env = Environment(
            get_target(target), executor, calib=None if calib is None else FeedList(calib)
        )
        context = Context(env, AnalysisManager(model, env), ir.snapshot(model))
        result = Prune(**options).run(model, context)  # type: ignore[arg-type]
    ir.verify(model)
    return result


def error(model: Model, original: Model, samples: Sequence[Feed]) -> float:
    """Relative squared error of the outputs."""
    one, two = open_session(original), open_session(model)
    pairs = [(one.run(feed)["y"], two.run(feed)["y"]) for feed in samples]
    apart = sum(float(np.square(a - b).sum()) for a, b in pairs)
    return apart / sum(float(np.square(a).sum()) for a, _ in pairs)


@pytest.fixture
def samples() -> list[Feed]:
    return feeds(mlp(), 60, {"N": 16})


def test_ranking_with_repair_beats_magnitude_and_no_repair(samples: list[Feed]) -> None:
    original, errors = mlp(), dict[str, float]()
    variants: dict[str, dict[str, object]] = {
        "ours": {},
        "unrepaired": {"compensate": False},
        "magnitude": {"importance": "magnitude", "compensate": False},
    }
    for name, options in variants.items():
        model = ir.snapshot(original)
        result = prune(model, samples[:40], share=0.5, multiple=1, **options)  # type: ignore[arg-type]
        assert result.changed is Aspect.ALL
        errors[name] = error(model, original, samples[40:])
    assert errors["ours"] < 0.1 * errors["magnitude"]
    assert errors["ours"] < 0.3 * errors["unrepaired"]


@pytest.mark.parametrize("importance", ["loss", "wanda", "variance", "magnitude"])
def test_the_budget_of_macs_is_met_and_multiples_are_kept(
    importance: str, samples: list[Feed]
) -> None:
    model = mlp()
    result = prune(model, samples, ratio=0.5, importance=importance)
    assert 0.3 < float(result.stats["macs_ratio"]) <= 0.5
    shapes = {
        v.name: v.const_value.shape for v in model.graph.initializers.values() if v.const_value
    }
    first = next(int(s[1]) for n, s in shapes.items() if str(n).startswith("w1"))  # type: ignore[arg-type]
    assert first < 64
    assert first % 8 == 0
    assert [layer.action for layer in result.layers]


@pytest.mark.parametrize("schedule", [1, 3])
def test_the_budget_of_parameters_is_met(schedule: int, samples: list[Feed]) -> None:
    model = mlp()
    before = ir.weight_bytes(model)
    result = prune(model, samples, params=0.5, schedule=schedule)
    assert 0.3 < float(result.stats["params_ratio"]) <= 0.5
    assert ir.weight_bytes(model) / before == pytest.approx(
        float(result.stats["params_ratio"]), abs=0.01
    )


def test_steps_of_a_schedule_add_up_to_what_goes(samples: list[Feed]) -> None:
    model = mlp()
    result = prune(model, samples, ratio=0.4, schedule=3)
    assert 0.25 < float(result.stats["macs_ratio"]) <= 0.4
    (first,) = [layer.action for layer in result.layers if layer.node == "a"]
    weight = next(v for n, v in model.graph.initializers.items() if n.startswith("w1"))
    assert weight.const_value is not None
    assert first.startswith(f"{weight.const_value.shape[1]} of 64")
    floor = prune(mlp(), samples, share=0.9, schedule=3, multiple=1, floor=0.5)
    assert all(int(layer.action.split()[0]) >= 24 for layer in floor.layers)


def test_the_budget_of_latency_is_corrected_until_the_clock_agrees(
    samples: list[Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def clock(
        model: Model, removed: Array, base: Model, env: Environment, *, width: bool
    ) -> LatencyResult:
        asked.append(1 - 0.6 * float(removed.mean()))
        return LatencyResult(((1.0, asked[-1]),) * 5)

    monkeypatch.setattr("onnxslim.passes.prune.choose.measure", clock)
    result = prune(mlp(), samples, latency=0.8, multiple=1)
    assert result.stats["latency_ratio"] == pytest.approx(0.8, abs=0.02)
    assert result.stats["latency_ratio"] in [round(a, 4) for a in asked]


def test_a_latency_that_cannot_be_met_is_refused_with_the_nearest(
    samples: list[Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock(
        model: Model, removed: Array, base: Model, env: Environment, *, width: bool
    ) -> LatencyResult:
        return LatencyResult(((1.0, 0.93),) * 5)

    monkeypatch.setattr("onnxslim.passes.prune.choose.measure", clock)
    with pytest.raises(OptionError, match=r"latency=0.3 of the measured latency .* 0\.93"):
        prune(mlp(), samples, latency=0.3)


def test_latency_is_refused_for_a_target_that_is_not_here() -> None:
    with pytest.raises(OptionError, match=r"'tensorrt' is not the runtime of this machine"):
        prune(mlp(), latency=0.5, target="tensorrt")


def test_without_samples_it_goes_by_the_weights_and_says_so() -> None:
    model = mlp()
    before = ir.weight_bytes(model)
    result = prune(model, ratio=0.6)
    assert ir.weight_bytes(model) < 0.8 * before
    assert "no calibration samples" in result.notes[0]


def test_kinds_and_names_can_be_chosen() -> None:
    model = NETWORKS["attention"].model()
    result = prune(model, share=0.34, only=("heads",), multiple=1)
    assert [layer.action for layer in result.layers] == ["2 of 3 attention heads stay"]
    model = mlp()
    prune(model, share=0.5, skip=("a",))
    sizes = sorted(int(v.shape[0]) for v in model.graph.initializers.values() if v.shape)  # type: ignore[arg-type]
    assert 64 in sizes


def test_groups_and_channels_of_a_convolution_take_a_share_together() -> None:
    text = """g (float[N,4,H,W] x) => (float[N,4,H,W] y) {
      a = Conv (x, w1)  r = Relu (a)  b = Conv <group = 8> (r, w2)  s = Relu (b)
      y = Conv (s, w3) }"""
    model = build(text, {"w1": (64, 4, 1, 1), "w2": (64, 8, 1, 1), "w3": (4, 64, 1, 1)})
    before = {g.kind: g.size for g in axis_map(model).groups}
    assert before == {"channels": 8, "convolution groups": 8}
    prune(model, share=0.5, multiple=1)
    weights = [ir.array(node.inputs[1]) for node in model.graph if ir.op(node) == "Conv"]
    shapes = [() if weight is None else weight.shape for weight in weights]
    assert shapes == [(30, 4, 1, 1), (30, 5, 1, 1), (4, 30, 1, 1)]  # 6 groups of 5: .47


@pytest.mark.parametrize(("multiple", "left"), [(0, (8, 16)), (4, (4, 16))])
def test_convolutions_keep_a_block_of_channels(multiple: int, left: tuple[int, int]) -> None:
    text = """g (float[N,3,8,8] x) => (float[N,4,8,8] y) {
      a = Conv (x, w1)  r = Relu (a)  c = Conv (r, w2)  s = Relu (c)  y = Conv (s, w3) }"""
    weights = {"w1": (8, 3, 1, 1), "w2": (32, 8, 1, 1), "w3": (4, 32, 1, 1)}
    model = build(text, weights)
    prune(model, share=0.5, multiple=multiple)
    shapes = [
        array.shape for n in model.graph for v in n.inputs if (array := ir.array(v)) is not None
    ]
    assert [shape[0] for shape in shapes[:2]] == list(left)


def test_what_stays_is_declined_with_the_reason(samples: list[Feed]) -> None:
    reasons = {d.node: d.reason for d in prune(mlp(), samples, share=0.5).declined}
    assert "it is an output of the model" in reasons["y"]


def test_few_samples_are_told(samples: list[Feed]) -> None:
    notes = " ".join(prune(mlp(), samples[:3], share=0.5).notes)
    assert "more rows are needed" in notes
    assert "prune saw 3 calibration samples" in notes


def test_samples_enough_are_not_complained_of() -> None:
    model = mlp()
    notes = " ".join(prune(model, feeds(model, count=256), share=0.5).notes)
    assert "calibration samples" not in notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.5}, "ratio=1.5 given, expected a number between 0 and 1"),
        ({"share": 0.0}, "share=0 given, expected a number between 0 and 1"),
        ({"ratio": 0.5, "share": 0.5}, "ratio and share given, expected one of them"),
        ({"params": -0.5}, "params=-0.5 given, expected a number between 0 and 1"),
        ({"latency": 0.5, "params": 0.5}, "params and latency given, expected one of them"),
        ({"schedule": 0}, "schedule=0 given, expected 1 or more"),
        ({"depth": 1.0}, "depth=1 given, expected 0 or more and less than 1"),
        ({"floor": 1.0}, "floor=1 given, expected 0 or more and less than 1"),
        ({"multiple": -1}, "multiple=-1 given, expected 0 or more"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prune(**options)  # type: ignore[arg-type]


def test_what_cannot_be_pruned_is_refused_with_the_reason_and_left_alone() -> None:
    model = build("g (float[N,6] x) => (float[N,4] y) { y = MatMul (x, w) }", {"w": (6, 4)})
    before = ir.checksum(model)
    with pytest.raises(OptionError, match="nothing of the model can be pruned: y: output 'y'"):
        prune(model)
    assert ir.checksum(model) == before


def test_macs_that_cannot_be_counted_are_told() -> None:
    net = """g (float[N,8] x) => (float[N,4] q) {
      h = MatMul (x, w1)  y = MatMul (h, w2)  q = com.microsoft.Nope (y) }"""
    model = build(net, {"w1": (8, 32), "w2": (32, 4)})
    before = ir.checksum(model)
    with pytest.raises(OptionError, match=r"MACs .* cannot be counted .*::Nope.* give params"):
        prune(model)
    assert ir.checksum(model) == before
    prune(model, params=0.7)
    assert ir.checksum(model) != before


@pytest.mark.parametrize("groups", [1, 8])
def test_an_input_of_unknown_rank_is_that_of_the_convolution_it_goes_to(groups: int) -> None:
    conv = "Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]"
    net = f"""g (float[N,8,6,6] x) => (float[N,8,6,6] y) {{
      a = {conv}, group = {groups}> (x, w0)  b = Relu (a)  y = {conv}> (b, w1) }}"""
    model = build(net, {"w0": (32, 8 // groups, 3, 3), "w1": (8, 32, 3, 3)})
    samples, original = feeds(model, 12), ir.snapshot(model)
    model.graph.inputs[0].shape = None
    result = prune(model, samples, ratio=0.7)
    assert [row.node for row in result.layers] == ["a"]
    assert error(model, original, samples) < 0.5


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_weight_that_holds_no_number_is_named(calibrated: bool, samples: list[Feed]) -> None:
    model = mlp()
    weight = model.graph.initializers["w2"]
    content = np.array(ir.array(weight))
    content[0, 0] = np.nan
    Editor(model).replace_initializer(weight, content)
    with pytest.raises(OptionError, match=r"the weight of 'b' holds NaN or infinity"):
        prune(model, samples if calibrated else None)


def test_a_budget_that_cannot_be_met_is_refused_with_the_nearest() -> None:
    model = mlp()
    before = ir.checksum(model)
    with pytest.raises(OptionError, match=r"cannot be met: what can go leaves 0\.\d+"):
        prune(model, ratio=0.1, floor=0.5)
    assert ir.checksum(model) == before


def test_without_a_goal_half_of_what_can_go_does_where_the_default_cannot_be_had() -> None:
    whole, half = mlp(), mlp()
    with pytest.raises(OptionError, match=r"leaves 0\.\d+") as refused:
        prune(whole, ratio=0.7, floor=0.8)
    least = float(re.findall(r"leaves (0\.\d+)", str(refused.value))[0])
    result = prune(half, floor=0.8)
    assert float(result.stats["macs_ratio"]) == pytest.approx((1 + least) / 2, abs=0.03)
    assert any(f"what can go leaves {least:.3f}" in note for note in result.notes)
    milder = Prune(floor=0.8).stricter(result)
    assert isinstance(milder, Prune)
    assert milder.ratio is not None
    assert float(result.stats["macs_ratio"]) < milder.ratio < 1


def test_a_quantized_model_is_refused() -> None:
    body = """g (float[N,6] x) => (float[N,4] y) {
      q = QuantizeLinear (x, one, zp)  d = DequantizeLinear (q, one, zp)
      y = MatMul (d, w) }"""
    body = body.replace(", zp", "")
    with pytest.raises(OptionError, match=r"quantized already .* --passes prune,quant"):
        prune(build(body, {"w": (6, 4)}))


def test_opsets_without_the_operator_that_masks_are_raised(samples: list[Feed]) -> None:
    model = mlp(7)
    result = prune(model, samples, ratio=0.5)
    assert float(result.stats["macs_ratio"]) <= 0.5


def test_a_failed_check_sends_it_back_to_remove_less_until_it_is_hardly_anything() -> None:
    result = PassResult()
    tried: list[float | None] = []
    step = Prune(ratio=0.5)
    while (milder := step.stricter(result)) is not None:
        assert isinstance(milder, Prune)
        step = milder
        tried.append(step.ratio)
    assert tried == sorted(tried, key=lambda r: r or 0)
    assert 0.9 < (tried[-1] or 0) < 1


@pytest.mark.parametrize(
    ("size", "multiple", "floor", "block", "expected"),
    [
        (64, 16, 0.2, 8, (0, 16, 32, 48)),
        (64, 16, 0.5, 1, (0, 16, 32)),
        (24, 16, 0.2, 8, (0, 8, 16)),
        (100, 16, 0.5, 8, (0, 4, 20, 36)),
        (3, 1, 0.0, 1, (0, 1, 2)),
        (2, 16, 0.9, 1, (0,)),
        (8, 16, 0.2, 1, (0, 4)),
        (8, 16, 0.2, 8, (0,)),
        (12, 16, 0.2, 8, (0, 4)),
        (6, 16, 0.2, 8, (0, 2, 4)),
    ],
)
def test_what_stays_is_a_multiple(
    size: int, multiple: int, floor: float, block: int, expected: tuple[int, ...]
) -> None:
    assert steps(size, multiple, floor, block) == expected


def test_the_greedy_loss_is_that_of_a_least_squares_fit() -> None:
    rng = np.random.default_rng(0)
    x: Array = rng.normal(size=(4000, 10)) @ rng.normal(size=(10, 10))
    x = x - x.mean(axis=0)
    weight: Array = rng.normal(size=(5, 10))
    covariance: Array = np.matmul(np.transpose(x), x) / len(x)
    blocks: list[Array] = [np.arange(2 * i, 2 * i + 2) for i in range(5)]
    order, losses = greedy([Consumer(weight, covariance, blocks)], 5, 3)
    kept = x[:, np.concatenate([blocks[i] for i in range(5) if i not in order])]
    wanted = np.matmul(x, np.transpose(weight))
    fit: Array = np.linalg.pinv(kept) @ wanted
    left = float(np.square(wanted - kept @ fit).sum()) / float(np.square(wanted).sum())
    assert losses[-1] == pytest.approx(left, rel=1e-4)
    assert (np.diff(losses) >= 0).all()
