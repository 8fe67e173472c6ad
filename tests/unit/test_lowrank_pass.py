"""The pass on small models: what it does, what it declines and says, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import OptionError
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.lowrank.lowrank import Lowrank
from onnxslim.pipeline.analysis import AnalysisManager, Aspect
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.runtime.samples import FeedList
from onnxslim.runtime.session import open_session
from onnxslim.targets import get_target

MLP = """
<ir_version: 8, opset_import: ["" : 17]>
mlp (float[N,64] x) => (float[N,32] y) {
  one = Gemm <transB = 1> (x, w1, b1)
  hidden = Relu(one)
  two = MatMul(hidden, w2)
  biased = Add(two, b2)
  relued = Relu(biased)
  y = MatMul(relued, w3)
}
"""
MLP_SHAPES = {"w1": (96, 64), "b1": (96,), "w2": (96, 96), "b2": (96,), "w3": (96, 32)}

CONV = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,12,12] x) => (float[N,48,12,12] y) {
  one = Conv <pads = [1, 1, 1, 1]> (x, w1)
  normal = BatchNormalization(one, g, b, m, v)
  hidden = Relu(normal)
  y = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (hidden, w2, b2)
}
"""
CONV_SHAPES = {
    "w1": (48, 3, 3, 3), "g": (48,), "b": (48,), "m": (48,), "v": (48,),
    "w2": (48, 48, 3, 3), "b2": (48,),
}  # fmt: skip


def build(text: str, shapes: dict[str, tuple[int, ...]], rank: int = 8) -> Model:
    """A model whose weights are random of low rank plus a little; initializers by name."""
    rng = np.random.default_rng(0)
    header, rest = text.split(") =>", 1)
    declared = "".join(
        f", float[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items()
    )
    model = ir.parse_text(f"{header}{declared}) =>{rest}")
    editor = Editor(model)
    for value in [v for v in model.graph.inputs if v.name in shapes]:
        made = editor.initializer(
            model.graph, f"{value.name}_value", weight(rng, str(value.name), shapes, rank)
        )
        editor.rewire(list(value.uses()), made)
        model.graph.inputs.remove(value)
    ir.verify(model)
    return model


def weight(
    rng: np.random.Generator, name: str, shapes: dict[str, tuple[int, ...]], rank: int
) -> Array:
    shape = shapes[name]
    if len(shape) == 1:
        return np.abs(rng.standard_normal(shape)).astype(np.float32)
    flat = (shape[0], int(np.prod(shape[1:])))
    low = rng.standard_normal((flat[0], rank)) @ rng.standard_normal((rank, flat[1]))
    noise = 0.3 * rng.standard_normal(flat)
    scaled: Array = (low + noise) / np.sqrt(flat[1])
    return scaled.reshape(shape).astype(np.float32)


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def feeds(shape: tuple[int, ...], count: int = 40) -> FeedList:
    rng = np.random.default_rng(1)
    return FeedList([{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(count)])


def run(
    model: Model, executor: ThreadPoolExecutor, calib: FeedList | None, lowrank: Lowrank
) -> PassResult:
    env = Environment(get_target("ort-cpu"), executor, calib=calib)
    result = lowrank.run(model, Context(env, AnalysisManager(model, env), ir.snapshot(model)))
    ir.verify(model)
    return result


def relative(model: Model, changed: Model, feed: dict[str, Array]) -> float:
    wanted, found = (open_session(m).run(feed)["y"] for m in (model, changed))
    return float(np.square(found - wanted).sum() / np.square(wanted).sum())


def test_gemm_and_matmul_within_a_budget(executor: ThreadPoolExecutor) -> None:
    model = build(MLP, MLP_SHAPES)
    before, calib = ir.snapshot(model), feeds((16, 64))
    result = run(model, executor, calib, Lowrank(ratio=0.5, measure=False))
    assert result.changed == Aspect.ALL
    assert float(result.stats["macs_ratio"]) <= 0.5
    assert macs(model) <= 0.5 * macs(before)
    assert len(result.layers) == result.stats["layers"]
    assert [v.name for v in model.graph.outputs] == ["y"]
    # the weights are of rank 8 up to noise of 10 %, and ranks are multiples of 8
    assert relative(before, model, dict(calib[0])) < 0.05


def macs(model: Model) -> int:
    """Of Gemm and MatMul, for one row."""
    products = (n for n in model.graph if ir.op(n) in ("Gemm", "MatMul"))
    arrays = [ir.array(n.inputs[1]) for n in products]
    return sum(a.size for a in arrays if a is not None)


def test_batch_normalization_is_folded_and_the_kernel_cut(executor: ThreadPoolExecutor) -> None:
    model = build(CONV, CONV_SHAPES)
    before, calib = ir.snapshot(model), feeds((1, 3, 12, 12))
    result = run(model, executor, calib, Lowrank(error=0.3, measure=False))
    assert "BatchNormalization" not in {ir.op(n) for n in model.graph}
    cores = sum("tucker" in row.action for row in result.layers)  # three layers instead of one
    assert len([n for n in model.graph if ir.op(n) == "Conv"]) == 2 + len(result.layers) + cores
    assert result.layers[0].predicted_db is not None
    assert relative(before, model, dict(calib[0])) < 0.3**2


def test_the_predicted_error_is_the_measured_one(executor: ThreadPoolExecutor) -> None:
    text = MLP.replace("y = MatMul(relued, w3)", "y = Identity(one)")
    model = build(text.replace("float[N,32] y", "float[N,96] y"), {**MLP_SHAPES})
    model = ir.snapshot(model)
    Editor(model).remove_dead()
    before, calib = ir.snapshot(model), feeds((16, 64))
    result = run(model, executor, calib, Lowrank(error=0.3, refit=False, measure=False))
    (row,) = result.layers
    outputs = [[open_session(m).run(f)["y"] for f in calib] for m in (before, model)]
    wanted, found = (np.concatenate(o).astype(np.float64) for o in outputs)
    measured = np.square(found - wanted).sum() / np.square(wanted - wanted.mean(0)).sum()
    assert row.predicted_db is not None
    assert measured == pytest.approx(10 ** (-row.predicted_db / 10), rel=0.02)


def test_the_refit_is_kept_only_where_it_helps(executor: ThreadPoolExecutor) -> None:
    plain, fitted = build(MLP, MLP_SHAPES, 24), build(MLP, MLP_SHAPES, 24)
    before = ir.snapshot(plain)
    calib = feeds((16, 64), 80)
    run(plain, executor, calib, Lowrank(ratio=0.35, refit=False, measure=False))
    result = run(fitted, executor, calib, Lowrank(ratio=0.35, measure=False))
    other = {"x": np.random.default_rng(7).standard_normal((256, 64)).astype(np.float32)}
    assert int(result.stats["refitted"]) >= 1
    assert relative(before, fitted, other) < relative(before, plain, other)


def test_a_budget_that_no_rank_meets_names_the_nearest(executor: ThreadPoolExecutor) -> None:
    model = build(MLP, MLP_SHAPES)
    with pytest.raises(OptionError, match=r"ratio=0\.01 .* cannot be met.*at least 0\.\d+") as info:
        run(model, executor, feeds((16, 64)), Lowrank(ratio=0.01, measure=False))
    least = float(str(info.value).rsplit("ratio=", 1)[1].split()[0])
    result = run(
        build(MLP, MLP_SHAPES), executor, feeds((16, 64)), Lowrank(ratio=least, measure=False)
    )
    assert float(result.stats["macs_ratio"]) <= least


def test_without_data_only_nearly_exact_ranks_are_taken(executor: ThreadPoolExecutor) -> None:
    model = build(MLP, MLP_SHAPES)
    before = ir.to_bytes(model)
    result = run(model, executor, None, Lowrank(measure=False))
    assert result.changed == Aspect.NONE
    assert ir.to_bytes(model) == before
    assert any("looked at the weights alone" in note for note in result.notes)
    assert any("relative error of at most 0.01" in d.reason for d in result.declined)


def test_without_data_a_weight_of_low_rank_is_found(executor: ThreadPoolExecutor) -> None:
    model = build(MLP, MLP_SHAPES)
    before = ir.snapshot(model)
    value = next(v for v in model.graph.initializers.values() if v.name == "w2_value")
    rng = np.random.default_rng(0)
    low = (rng.standard_normal((96, 8)) @ rng.standard_normal((8, 96))).astype(np.float32)
    for each in (model, before):
        Editor(each).replace_initializer(each.graph.initializers[str(value.name)], low)
    result = run(model, executor, None, Lowrank(measure=False))
    assert [row.action.split(",")[0] for row in result.layers] == ["linear rank 8"]
    x = rng.standard_normal((5, 64)).astype(np.float32)
    assert relative(before, model, {"x": x}) < 1e-10  # float32 rounding, squared


def test_nan_in_the_statistics_is_named(executor: ThreadPoolExecutor) -> None:
    model = build(MLP.replace("hidden = Relu(one)", "hidden = Log(one)"), MLP_SHAPES)
    result = run(model, executor, feeds((16, 64)), Lowrank(error=0.3, measure=False))
    reasons = [d.reason for d in result.declined]
    assert any("no statistics of its input" in r and "NaN" in r for r in reasons)


def test_a_weight_that_holds_nan_is_named(executor: ThreadPoolExecutor) -> None:
    model = build(MLP, MLP_SHAPES)
    value = model.graph.initializers["w3_value"]
    spoiled = np.full((96, 32), np.nan, np.float32)
    Editor(model).replace_initializer(value, spoiled)
    result = run(model, executor, feeds((16, 64)), Lowrank(error=0.3, measure=False))
    assert any("the weight holds NaN or infinity" in d.reason for d in result.declined)
    assert {row.node for row in result.layers} == {"one", "two"}


def test_inputs_of_few_directions_are_cut_to_those(executor: ThreadPoolExecutor) -> None:
    model = build(MLP, MLP_SHAPES, rank=64)
    before = ir.snapshot(model)
    rng = np.random.default_rng(2)
    ways = rng.standard_normal((5, 64))
    calib = FeedList(
        [{"x": (rng.standard_normal((16, 5)) @ ways).astype(np.float32)} for _ in range(40)]
    )
    result = run(model, executor, calib, Lowrank(error=0.02, measure=False))
    assert result.layers[0].action.startswith("linear rank 8,")  # the multiple next to 5
    assert relative(before, model, dict(calib[0])) < 3 * 0.02**2


def test_constant_inputs_are_named(executor: ThreadPoolExecutor) -> None:
    model = build(MLP, MLP_SHAPES)
    before = ir.to_bytes(model)
    calib = FeedList([{"x": np.ones((16, 64), np.float32)}] * 10)
    result = run(model, executor, calib, Lowrank(error=0.3, measure=False))
    assert result.changed == Aspect.NONE
    assert ir.to_bytes(model) == before
    assert sum("never varied" in d.reason for d in result.declined) == 3


def test_too_few_rows_are_damped_and_said(executor: ThreadPoolExecutor) -> None:
    model = build(MLP, MLP_SHAPES)
    result = run(model, executor, feeds((1, 64), 12), Lowrank(error=0.5, measure=False))
    assert any("needs 84 more rows" in note for note in result.notes)
    assert result.layers
    for value in model.graph.initializers.values():
        array = ir.array(value)
        assert array is not None
        assert np.isfinite(array).all()


def test_a_shared_weight_stays_with_the_node_that_is_skipped(executor: ThreadPoolExecutor) -> None:
    text = MLP.replace("y = MatMul(relued, w3)", "y = MatMul(relued, w2)")
    model = build(text.replace("float[N,32] y", "float[N,96] y"), MLP_SHAPES)
    names = [n.name or str(n.outputs[0].name) for n in model.graph if ir.op(n) == "MatMul"]
    lowrank = Lowrank(error=0.3, measure=False, skip=(names[0],))
    result = run(model, executor, feeds((16, 64)), lowrank)
    assert names[1] in {row.node for row in result.layers}
    assert any(d.node == names[0] and "skip" in d.reason for d in result.declined)
    assert len([n for n in model.graph if ir.op(n) == "MatMul"]) == 3


def test_weights_that_are_no_constants_are_named(executor: ThreadPoolExecutor) -> None:
    text = MLP.replace(
        "y = MatMul(relued, w3)", "turned = Transpose(biased)\n y = MatMul(biased, turned)"
    )
    model = build(text.replace("float[N,32] y", "float[N,N] y"), MLP_SHAPES)
    result = run(model, executor, feeds((16, 64)), Lowrank(error=0.3, measure=False))
    assert any("computed, not a constant" in d.reason for d in result.declined)


FUNCTION = """
<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
g (float[N,64] x, float[64,64] u) => (float[N,64] y) {
  h = MatMul(x, w1)
  y = own.layer(h, u)
}
<domain: "own", opset_import: ["" : 17]>
layer (a, w) => (b) {
  b = MatMul(a, w)
}
"""


def test_layers_inside_a_function_are_declined_by_name(executor: ThreadPoolExecutor) -> None:
    model = build(FUNCTION, {"w1": (64, 64)}, rank=4)
    calib = FeedList([{**f, "u": np.eye(64, dtype=np.float32)} for f in feeds((16, 64))])
    result = run(model, executor, calib, Lowrank(error=0.5, measure=False))
    assert [row.node for row in result.layers] == ["h"]
    assert any("computed, not a constant" in d.reason for d in result.declined)


def test_a_model_quantized_outside_is_declined(executor: ThreadPoolExecutor) -> None:
    text = MLP.replace(
        "y = MatMul(relued, w3)", "q = DequantizeLinear(w4, s)\n y = MatMul(relued, q)"
    )
    text = text.replace("float[N,32] y", "float[N,32] y").replace("x) =>", "x, int8[96,32] w4) =>")
    model = build(text, {**MLP_SHAPES, "s": (1,)})
    rng = np.random.default_rng(0)
    calib = FeedList(
        [
            {"x": rng.standard_normal((4, 64)).astype(np.float32), "w4": np.ones((96, 32), np.int8)}
            for _ in range(30)
        ]
    )
    result = run(model, executor, calib, Lowrank(error=0.3, measure=False))
    assert any("quantized already" in d.reason for d in result.declined)


def test_pairs_that_are_not_faster_are_declined_with_both_times(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxslim.passes.lowrank import timing

    def times(sites: object, made: object) -> timing.Speed:
        return timing.Speed(1.0, 1.5)

    def unknown(sites: object, ways: object) -> None:
        return None

    monkeypatch.setattr(timing.Clock, "speed", staticmethod(times))
    monkeypatch.setattr(timing.Clock, "times", staticmethod(unknown))
    model = build(MLP, MLP_SHAPES)
    result = run(model, executor, feeds((16, 64)), Lowrank(error=0.3))
    assert result.changed == Aspect.NONE
    assert any("1 ms -> 1.5 ms" in d.reason for d in result.declined)


def test_the_same_run_gives_the_same_bytes(executor: ThreadPoolExecutor) -> None:
    models = [build(MLP, MLP_SHAPES) for _ in range(2)]
    for model in models:
        run(model, executor, feeds((16, 64)), Lowrank(ratio=0.5, measure=False))
    assert ir.to_bytes(models[0]) == ir.to_bytes(models[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.0}, "ratio=0 given, expected a number between 0 and 1"),
        ({"ratio": 1.5}, "ratio=1.5 given"),
        ({"error": -1.0}, "error=-1 given"),
        ({"multiple": -8}, "multiple=-8 given, expected 0 or more"),
        ({"min_dim": 0}, "min_dim=0 given, expected 1 or more"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        Lowrank(**options)  # type: ignore[arg-type]
