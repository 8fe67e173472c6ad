"""Budgets of parameters and of time, common factors and tables: what the pass makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.errors import OptionError
from onnxslim.ir import Array, Model
from onnxslim.passes.lowrank import settle, timing
from onnxslim.passes.lowrank.lowrank import Lowrank
from onnxslim.passes.lowrank.survey import Site
from onnxslim.passes.lowrank.timing import Speed, Times
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment, Layer, PassResult
from onnxslim.runtime.latency import LatencyResult
from onnxslim.runtime.samples import FeedList
from onnxslim.runtime.session import open_session
from onnxslim.targets import get_target
from tests.unit.test_lowrank_pass import MLP, MLP_SHAPES, build, feeds, relative, run

PROJECTIONS = """
<ir_version: 8, opset_import: ["" : 17]>
projections (float[N,64] x) => (float[N,48] y) {
  q = MatMul(x, w1)
  k = MatMul(x, w2)
  v = MatMul(x, w3)
  sum = Add(q, k)
  y = Add(sum, v)
}
"""
PROJECTION_SHAPES: dict[str, tuple[int, ...]] = {"w1": (64, 48), "w2": (64, 48), "w3": (64, 48)}

TIED = """
<ir_version: 8, opset_import: ["" : 17]>
tied (int64[N] ids) => (float[N,300] y) {
  row = Gather(table, ids)
  hidden = Relu(row)
  turned = Transpose <perm = [1, 0]> (table)
  y = MatMul(hidden, turned)
}
"""


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def common_inputs(rank: int = 8) -> FeedList:
    """Inputs that lie near a few directions, so that one factor serves all readers."""
    rng = np.random.default_rng(3)
    ways = rng.standard_normal((rank, 64))
    made = [
        {"x": (rng.standard_normal((16, rank)) @ ways + 0.05 * rng.standard_normal((16, 64)))
         .astype(np.float32)}
        for _ in range(40)
    ]  # fmt: skip
    return FeedList(made)


def tied_model() -> Model:
    rng = np.random.default_rng(0)
    low = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 64))
    table = (low + 0.1 * rng.standard_normal((300, 64))).astype(np.float32)
    return build_tied(TIED, table)


def build_tied(text: str, table: Array) -> Model:
    model = ir.parse_text(text.replace("ids) =>", "ids, float[300,64] table) =>"))
    value = next(v for v in model.graph.inputs if v.name == "table")
    made = ir.Editor(model).initializer(model.graph, "rows", table)
    ir.Editor(model).rewire(list(value.uses()), made)
    model.graph.inputs.remove(value)
    ir.verify(model)
    return model


def ids(count: int = 40) -> FeedList:
    rng = np.random.default_rng(1)
    return FeedList([{"ids": rng.integers(0, 300, 32)} for _ in range(count)])


def parameters(model: Model) -> int:
    arrays = [ir.array(v) for v in model.graph.initializers.values()]
    return sum(a.size for a in arrays if a is not None)


def test_a_budget_of_parameters_counts_weights(executor: ThreadPoolExecutor) -> None:
    model = build(MLP, MLP_SHAPES)
    before = ir.snapshot(model)
    result = run(model, executor, feeds((16, 64)), Lowrank(params=0.5, measure=False))
    assert parameters(model) <= 0.5 * parameters(before)
    # the biases that take up the shift of layers that had none are not in the estimate
    assert parameters(model) / parameters(before) == pytest.approx(
        float(result.stats["params_ratio"]), abs=0.01
    )


def test_layers_that_read_the_same_share_a_factor(executor: ThreadPoolExecutor) -> None:
    model = build(PROJECTIONS, PROJECTION_SHAPES, rank=40)
    before, calib = ir.snapshot(model), common_inputs()
    result = run(model, executor, calib, Lowrank(ratio=0.2, measure=False))
    assert [row.action.split(",")[0] for row in result.layers] == ["joint rank 8"] * 3
    products = [n for n in model.graph if ir.op(n) == "MatMul"]
    assert len(products) == 4
    assert len({str(n.inputs[0].name) for n in products if n.inputs[0]}) == 2
    # what the common directions do not hold: 0.05^2 of 64 directions
    assert relative(before, model, dict(calib[0])) < 0.05


@pytest.mark.parametrize("refit", [False, True])
def test_a_common_factor_may_give_outputs_of_its_layers(
    refit: bool, executor: ThreadPoolExecutor
) -> None:
    """44 directions of 64 are too many for common factors, but for those that leave 48 of the 144
    outputs to the first one: 48 (64 + 144 - 48) numbers of 64 x 144."""
    model = build(PROJECTIONS, PROJECTION_SHAPES, rank=48)
    before, calib = ir.snapshot(model), common_inputs(44)
    result = run(model, executor, calib, Lowrank(params=0.84, measure=False, refit=refit))
    assert [r.action.split(",")[0] for r in result.layers] == ["pivoted joint rank 48"] * 3
    weights = [a for v in model.graph.initializers.values() if (a := _array(v)).ndim == 2]
    assert sum(a.size for a in weights) == 48 * (64 + 144 - 48)
    assert sum(ir.op(n) == "MatMul" for n in model.graph) == 4
    assert relative(before, model, dict(calib[0])) < 0.01


def test_a_common_factor_that_costs_more_is_not_taken(executor: ThreadPoolExecutor) -> None:
    model = build(PROJECTIONS, PROJECTION_SHAPES, rank=4)
    options = Lowrank(error=0.3, scheme="joint", measure=False)
    result = run(model, executor, feeds((16, 64)), options)
    assert all("joint" not in row.action for row in result.layers)


def test_a_table_and_its_tied_head_are_cut_once(executor: ThreadPoolExecutor) -> None:
    model = tied_model()
    before = ir.snapshot(model)
    result = run(model, executor, ids(), Lowrank(params=0.3, measure=False))
    assert next(row.action for row in result.layers).startswith("table and its tied head rank")
    assert [v.name for v in model.graph.outputs] == ["y"]
    tables = [v for v in model.graph.initializers.values() if len(_array(v)) == 300]
    assert len(tables) == 1  # stored once
    assert parameters(model) <= 0.3 * parameters(before)
    wanted, found = (open_session(m).run(ids()[0])["y"] for m in (before, model))
    # the noise beside the six directions has 0.01 * 64 of 6 * 64 + 0.64 of the energy
    assert np.square(found - wanted).sum() / np.square(wanted).sum() < 0.01


def _array(value: ir.Value) -> Array:
    found = ir.array(value)
    assert found is not None
    return found


def test_a_table_stays_where_only_macs_count(executor: ThreadPoolExecutor) -> None:
    text = TIED.replace("turned = Transpose <perm = [1, 0]> (table)", "").replace(
        "y = MatMul(hidden, turned)", "y = Identity(hidden)"
    )
    rng = np.random.default_rng(0)
    table = rng.standard_normal((300, 64)).astype(np.float32)
    model = build_tied(text.replace("float[N,300]", "float[N,64]"), table)
    result = run(model, executor, ids(), Lowrank(ratio=0.5, measure=False))
    assert not result.layers


def test_rows_that_every_sample_reads_stay_as_they_are(executor: ThreadPoolExecutor) -> None:
    text = TIED.replace("turned = Transpose <perm = [1, 0]> (table)", "").replace(
        "y = MatMul(hidden, turned)", "y = Identity(row)"
    )
    rng = np.random.default_rng(0)
    table = rng.standard_normal((300, 64)).astype(np.float32)
    model = build_tied(text.replace("float[N,300]", "float[N,64]"), table)
    often = FeedList(
        [{"ids": np.array([*range(14), -1, -2, *rng.integers(0, 300, 3)])} for _ in range(40)]
    )
    result = run(model, executor, often, Lowrank(params=0.6, measure=False))
    assert "rows stay as they are" in result.layers[0].action
    assert parameters(model) <= 0.6 * table.size  # two indices of each row are among them
    (found,) = open_session(model).run({"ids": np.array([0, 7, -1, 298])}).values()
    np.testing.assert_array_equal(found, table[[0, 7, 299, 298]])


@pytest.mark.parametrize("axis", [0, 1])
def test_a_table_that_others_read_is_declined(executor: ThreadPoolExecutor, axis: int) -> None:
    text = TIED.replace("turned = Transpose <perm = [1, 0]> (table)",
                        f"turned = Softmax <axis = {axis}> (table)")  # fmt: skip
    text = text.replace("y = MatMul(hidden, turned)", "y = Gemm <transB = 1> (hidden, turned)")
    rng = np.random.default_rng(0)
    model = build_tied(text, rng.standard_normal((300, 64)).astype(np.float32))
    with pytest.raises(OptionError, match=r"params=0\.5 .* cannot be met"):
        run(model, executor, ids(), Lowrank(params=0.5, measure=False))


def test_a_latency_budget_is_corrected_by_the_whole_model(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers take what their factors have in numbers; the whole model takes a tenth more."""
    model = build(MLP, MLP_SHAPES)
    whole = sum(int(np.prod(s)) for s in MLP_SHAPES.values() if len(s) == 2)

    def times(_: object, sites: Sequence[Site], ways: timing.Ways) -> Times:
        shape = sites[0].shape
        points = {
            way: tuple((r, float(way.cost(shape, r).params)) for r in ranks)
            for way, ranks in ways.items()
        }
        return Times(float(shape.params), points)

    def speed(_: object, sites: object, pairs: object) -> Speed:
        return Speed(1.0, 0.5)

    def turns(models: Sequence[Model], env: object) -> LatencyResult:
        products = [
            ir.array(n.inputs[1]) for n in models[-1].graph if ir.op(n) in ("Gemm", "MatMul")
        ]
        left = sum(a.size for a in products if a is not None) / whole
        ms = (float(whole), (left + 0.1 * (left < 1)) * whole)
        return LatencyResult((ms[: len(models)],))

    monkeypatch.setattr(timing.Clock, "times", times)
    monkeypatch.setattr(timing.Clock, "speed", speed)
    monkeypatch.setattr(settle, "turns", turns)
    monkeypatch.setattr("onnxslim.passes.lowrank.lowrank.turns", turns)
    result = run(model, executor, feeds((16, 64)), Lowrank(latency=0.6))
    assert float(result.stats["ms_ratio"]) <= 0.61
    assert float(result.stats["macs_ratio"]) <= 0.51
    assert not any("was not met" in note for note in result.notes)


def test_a_latency_of_another_machine_is_refused(executor: ThreadPoolExecutor) -> None:
    model = build(MLP, MLP_SHAPES)
    env = Environment(get_target("tensorrt"), executor, calib=feeds((16, 64)))
    ctx = Context(env, AnalysisManager(model, env), ir.snapshot(model))
    with pytest.raises(OptionError, match="'tensorrt' is not the runtime of this machine"):
        Lowrank(latency=0.5).run(model, ctx)


def test_a_latency_that_no_rank_meets_names_the_nearest(executor: ThreadPoolExecutor) -> None:
    model = build(MLP, MLP_SHAPES)
    with pytest.raises(OptionError, match=r"latency=0\.001 of the milliseconds cannot be met"):
        run(model, executor, feeds((16, 64)), Lowrank(latency=0.001))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.5, "params": 0.5}, "ratio and params given, expected one budget"),
        ({"latency": 0.5, "params": 0.5}, "params and latency given"),
        ({"latency": 0.5, "measure": False}, "latency given without measuring"),
        ({"params": 1.0}, "params=1 given, expected a number between 0 and 1"),
    ],
)
def test_budgets_that_do_not_go_together(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        Lowrank(**options)  # type: ignore[arg-type]


LAYER = PassResult(layers=(Layer("a", "Gemm", "linear rank 8"),))


@pytest.mark.parametrize(
    ("given", "milder"),
    [
        (Lowrank(ratio=0.5), Lowrank(ratio=0.65)),
        (Lowrank(params=0.8, error=0.1), Lowrank(params=0.86, error=0.1)),
        (Lowrank(latency=0.6), Lowrank(latency=0.72)),
        (Lowrank(error=0.1), Lowrank(error=0.07)),
        (Lowrank(), Lowrank(error=0.021)),
        (Lowrank(ratio=0.97), None),
        (Lowrank(error=0.001), None),
    ],
)
def test_a_check_that_fails_asks_for_less(given: Lowrank, milder: Lowrank | None) -> None:
    assert given.stricter(LAYER) == milder


def test_where_nothing_was_cut_there_is_nothing_milder() -> None:
    assert Lowrank(ratio=0.5).stricter(PassResult()) is None


def test_without_data_the_error_that_was_allowed_gets_less() -> None:
    result = PassResult(layers=LAYER.layers, stats={"error": 0.01})
    assert Lowrank().stricter(result) == Lowrank(error=0.007)


def test_between_what_failed_and_what_passed_lies_the_middle() -> None:
    assert Lowrank(ratio=0.5).between(LAYER, Lowrank(ratio=0.65)) == Lowrank(ratio=0.575)
    assert Lowrank().between(LAYER, Lowrank(error=0.021)) == Lowrank(error=0.0255)
    assert Lowrank(ratio=0.64).between(LAYER, Lowrank(ratio=0.65)) is None


def test_where_no_layer_costs_less_no_other_budget_is_named(executor: ThreadPoolExecutor) -> None:
    model = build(MLP, MLP_SHAPES)
    with pytest.raises(
        OptionError, match=r"ratio=0\.5 .* cannot be met: no layer costs less in two"
    ):
        run(model, executor, feeds((16, 64)), Lowrank(ratio=0.5, measure=False, min_dim=10_000))


BRANCHES = """
<ir_version: 8, opset_import: ["" : 17]>
branches (float[N,64] x, bool g) => (float[N,64] y) {
  a = MatMul(x, w1)
  y = If(g) <
    then_branch = one () => (float[N,64] t) { t = MatMul(a, w2) },
    else_branch = two () => (float[N,64] e) { e = Identity(a) }
  >
}
"""


def test_a_layer_in_a_branch_is_cut_unfelt(executor: ThreadPoolExecutor) -> None:
    model = build(BRANCHES, {"w1": (64, 64), "w2": (64, 64)})
    calib = [{**feed, "g": np.array(True)} for feed in feeds((16, 64))]
    result = run(model, executor, FeedList(calib), Lowrank(ratio=0.5, measure=False))
    assert float(result.stats["macs_ratio"]) <= 0.5
