"""The closed form: what it wins back, what it leaves alone, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.distance import errors_to, outputs_of
from onnxslim.errors import DataError, OptionError
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.distill import gradient
from onnxslim.passes.distill.distill import Distill
from onnxslim.passes.distill.grids import floated, grid_of, reach, written_back
from onnxslim.passes.distill.layer import Refitted, refit_layers
from onnxslim.passes.refit import stretches
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Context, Environment, PassResult
from onnxslim.pipeline.order import check_order
from onnxslim.registry import build as build_passes
from onnxslim.runtime.samples import Feed, FeedList
from onnxslim.runtime.session import Session, open_session
from onnxslim.targets import get_target
from tests.quantizing import build, feeds, quantize, sqnr_db

NET = """g (float[N,3,12,12] x) => (float[N,6] y) {
  a = Conv <pads=[1,1,1,1]> (x, w1, b1)  r = Relu (a)
  c = Conv <strides=[2,2]> (r, w2, b2)  s = Relu (c)
  p = GlobalAveragePool (s)  f = Flatten (p)
  m = MatMul (f, w3)  t = Tanh (m)  n = MatMul (t, w4)  y = Add (n, b4) }"""
WEIGHTS: dict[str, Sequence[int] | Array] = {
    "w1": (16, 3, 3, 3), "b1": (16,), "w2": (24, 16, 3, 3), "b2": (24,), "w3": (24, 32),
    "w4": (32, 6), "b4": (6,),
}  # fmt: skip


def distill(
    original: Model, student: Model, calib: Sequence[Feed] | None, **options: object
) -> PassResult:
    """One run of the pass in place."""
    with ThreadPoolExecutor(1) as executor:
        env = Environment(
            get_target("ort-cpu"), executor, calib=None if calib is None else FeedList(calib)
        )
        context = Context(env, AnalysisManager(student, env), original)
        result = Distill(**options).run(student, context)  # type: ignore[arg-type]
    ir.verify(student)
    return result


def disturbed(model: Model, *names: str) -> Model:
    """A copy in which half of the columns of some weights are zero."""
    student = ir.snapshot(model)
    editor, rng = Editor(student), np.random.default_rng(5)
    for name in names:
        value = student.graph.initializers[name]
        content = ir.array(value)
        assert content is not None
        mask = rng.random(content.shape) < 0.5
        editor.replace_initializer(value, np.where(mask, 0, content).astype(content.dtype))
    return student


def skeleton(model: Model) -> list[object]:
    """All of a model but the contents of its constants."""
    made = [
        (n.name, ir.op(n), [v and v.name for v in n.inputs], [v.name for v in n.outputs],
         sorted((k, str(a.value)) for k, a in n.attributes.items()))
        for n in model.graph
    ]  # fmt: skip
    constants = sorted(
        (k, str(v.const_value.dtype), tuple(v.const_value.shape))
        for k, v in model.graph.initializers.items()
        if v.const_value is not None
    )
    return [*made, constants]


@pytest.fixture(scope="module")
def samples() -> list[Feed]:
    return feeds(build(NET, WEIGHTS), 80, {"N": 4})


def test_layers_make_up_for_each_other_on_samples_not_seen(samples: list[Feed]) -> None:
    model = build(NET, WEIGHTS)
    student = disturbed(model, "w1", "w2")
    before, was = sqnr_db(model, student, samples[40:]), skeleton(student)
    result = distill(model, student, samples[:40], level="layer")
    assert result.stats["level"] == "layer"
    assert sqnr_db(model, student, samples[40:]) > before + 3
    assert float(result.stats["error_after"]) < float(result.stats["error_before"])
    assert skeleton(student) == was


def test_a_layer_without_a_bias_is_fitted_without_one(samples: list[Feed]) -> None:
    model = build(NET, WEIGHTS)
    student = disturbed(model, "w3")
    result = distill(model, student, samples[:40], level="layer")
    assert "MatMul" in {row.op for row in result.layers}
    assert sqnr_db(model, student, samples[40:]) > 45  # what reaches it is the teacher's; a ridge


def test_stages_go_on_from_where_one_ended_to_the_same_weights(
    samples: list[Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, parts = build(NET, WEIGHTS), list[Model]()

    def noted(part: Model, **options: Any) -> Session:
        parts.append(part)
        return open_session(part, **options)

    def has_room(self: stretches.Stretches, kept: Feed) -> bool:
        return there

    def taught() -> dict[str, Array]:
        parts.clear()
        monkeypatch.setattr(stretches, "open_session", noted)
        monkeypatch.setattr(stretches.Stretches, "_has_room", has_room)
        student = disturbed(model, "w1", "w2", "w3")
        distill(model, student, samples[:40], level="layer")
        return {n: a for n in WEIGHTS if (a := ir.array(student.graph.initializers[n])) is not None}

    there = False
    anew = taught()
    assert not parts
    there = True
    kept = taught()
    assert parts
    assert not any(n.outputs[0].name == "a" for part in parts for n in part.graph)
    for name, array in anew.items():  # sums in another order
        assert kept[name] == pytest.approx(array, abs=1e-4), name


def test_no_layer_is_begun_after_the_time_given(samples: list[Feed]) -> None:
    model = build(NET, WEIGHTS)
    student = disturbed(model, "w1", "w2")
    before = ir.to_bytes(student)
    with ThreadPoolExecutor(1) as executor:
        env = Environment(get_target("ort-cpu"), executor, calib=FeedList(samples[:40]))
        done = refit_layers(model, student, env, 0.0)
    assert isinstance(done, Refitted)
    assert done.layers == ()
    assert [d.reason for d in done.declined] == ["the time was up"] * 4
    assert len({d.node for d in done.declined}) == 4
    assert ir.to_bytes(student) == before


def test_the_layers_that_the_minutes_leave_are_counted(samples: list[Feed]) -> None:
    model = build(NET, WEIGHTS)
    student = disturbed(model, "w1", "w2")
    result = distill(model, student, samples[:40], level="layer", minutes=1e-9)
    assert not result.changed
    assert result.notes == ("The time was up: 4 layers are as they were; minutes= gives more.",)
    whole = distill(model, student, samples[:40], level="layer", minutes=1e-9, steps=1)
    assert whole.changed
    assert not whole.notes


def views(photos: int, each: int, seed: int) -> list[Feed]:
    """Samples x [1,96] in groups of neighbours that are all but alike."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(photos, 1, 96)), each, axis=0)
    return [{"x": (c + rng.normal(0, 0.1, c.shape)).astype(np.float32)} for c in centres]


BLIND: dict[str, Sequence[int] | Array] = {
    "mask": np.ones(96, np.float32), "w1": (96, 96), "b1": (96,), "w2": (96, 96), "b2": (96,),
}  # fmt: skip


def blind() -> tuple[Model, Model]:
    """A teacher, and a student that does not see a quarter of the inputs: what they do can only be
    learnt by heart."""
    model = build(
        """g (float[N,96] x) => (float[N,96] y) {
      m = Mul (x, mask)  a = Gemm (m, w1, b1)  t = Tanh (a)  y = Gemm (t, w2, b2) }""",
        BLIND,
    )
    student = ir.snapshot(model)
    mask = (np.arange(96) >= 24).astype(np.float32)
    Editor(student).replace_initializer(student.graph.initializers["mask"], mask)
    return model, student


@pytest.mark.parametrize("seed", range(3))
def test_what_fits_views_of_few_photos_and_not_others_is_undone(seed: int) -> None:
    model, student = blind()
    unseen = views(100, 1, 100 + seed)
    before = sqnr_db(model, student, unseen)
    result = distill(model, student, views(8, 8, seed), level="layer")
    assert result.stats["held_out"] == 16
    assert sqnr_db(model, student, unseen) > before - 0.05


def test_a_student_that_is_the_teacher_stays_as_it_is(samples: list[Feed]) -> None:
    model = build(NET, WEIGHTS)
    student = ir.snapshot(model)
    result = distill(model, student, samples[:40], level="layer")
    assert float(result.stats["error_after"]) <= float(result.stats["error_before"])
    assert sqnr_db(model, student, samples[40:]) > 80


def test_quantized_weights_move_on_their_grid(samples: list[Feed]) -> None:
    model = build(NET, WEIGHTS)
    student = ir.snapshot(model)
    quantize(student, samples[:40], scheme="int8", weight_bits=4, wide_share=0.0,
             rounding="nearest", portable=True)  # fmt: skip
    grids = {str(n.outputs[0].name): g for n in student.graph if (g := grid_of(n)) is not None}
    before, was = sqnr_db(model, student, samples[40:]), skeleton(student)
    result = distill(model, student, samples[:40], level="layer")
    assert result.layers
    assert sqnr_db(model, student, samples[40:]) > before + 1
    assert skeleton(student) == was
    for node in student.graph:
        grid = grid_of(node)
        if grid is not None:
            own = grids[str(node.outputs[0].name)]
            assert np.array_equal(own.step, grid.step)
            centred = grid.codes.astype(np.float64) - grid.zero
            assert (centred >= own.low).all()
            assert (centred <= own.high).all()


def test_floats_of_codes_are_written_back_as_the_same_codes(samples: list[Feed]) -> None:
    student = build(NET, WEIGHTS)
    quantize(student, samples[:40], scheme="int8", portable=True)
    copy, grids = floated(student)
    assert len(grids) >= 5
    assert sqnr_db(student, copy, samples[40:44], optimize="none") > 80
    before = ir.to_bytes(student)
    written_back(student, copy, grids)
    assert ir.to_bytes(student) == before


def test_floats_of_codes_are_compared_as_they_are(samples: list[Feed]) -> None:
    """ONNX Runtime would round a float weight between quantized activations by tensor: of channels
    of so different ranges little is left."""
    model = build(NET, {**WEIGHTS, "w1": wide((16, 3, 3, 3)), "w2": wide((24, 16, 3, 3))})
    student = ir.snapshot(model)
    quantize(student, samples[:40], scheme="int8", portable=True)
    copy, _ = floated(student)
    some = FeedList(samples[40:48])
    wanted = outputs_of(model, some, 1)
    own = errors_to(wanted, student, some, 1, "none")
    found, rounded = (errors_to(wanted, copy, some, 1, how) for how in ("float", "all"))
    assert own is not None
    assert found is not None
    assert rounded is not None
    assert found == pytest.approx(own, rel=0.1)
    assert rounded.mean() > 2 * own.mean()


def wide(shape: tuple[int, ...]) -> Array:
    """Weights of output channels whose ranges differ a hundred times."""
    rng = np.random.default_rng(3)
    scales = np.geomspace(0.01, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (rng.normal(size=shape) * scales).astype(np.float32)


@pytest.mark.parametrize(
    ("codes", "limits"),
    [([-7, 7], (-7, 7)), ([-8, 3], (-8, 7)), ([-1, 1], (-1, 1)), ([-128, 5], (-128, 127))],
)
def test_codes_keep_the_bits_they_use(codes: list[int], limits: tuple[int, int]) -> None:
    assert reach(np.array(codes, np.float64)) == limits


def test_what_has_no_counterpart_is_declined_with_the_reason(samples: list[Feed]) -> None:
    model = build(NET, WEIGHTS)
    student = disturbed(model, "w2")
    editor = Editor(student)
    for name in ("w1", "b1"):
        value = student.graph.initializers[name]
        content = ir.array(value)
        assert content is not None
        editor.replace_initializer(value, content[:8])
    second = ir.array(student.graph.initializers["w2"])
    assert second is not None
    editor.replace_initializer(student.graph.initializers["w2"], second[:, :8])
    for node in student.graph:
        for made in node.outputs:
            made.shape = None
    result = distill(model, student, samples[:40], level="layer")
    reasons = [declined.reason for declined in result.declined]
    assert "the teacher's tensor is (4, 16, 12, 12), not (4, 8, 12, 12)" in reasons


def test_without_enough_samples_it_says_what_to_give() -> None:
    model = build(NET, WEIGHTS)
    with pytest.raises(DataError, match="no calibration samples given, expected 10 or more"):
        distill(model, ir.snapshot(model), None)
    with pytest.raises(DataError, match="9 calibration samples given"):
        distill(model, ir.snapshot(model), feeds(model, 9))


def test_other_outputs_than_the_teachers_are_declined(samples: list[Feed]) -> None:
    model = build(NET, WEIGHTS)
    student = build(NET.replace("float[N,6] y", "float[N,6] z").replace("y =", "z ="), WEIGHTS)
    result = distill(model, student, samples[:40], level="layer")
    assert not result.changed
    assert "other outputs than the teacher, which has y" in result.declined[0].reason


def test_the_usual_order_has_it_before_or_after_quant() -> None:
    names = [p.name for p in build_passes("simplify,prune,lowrank,distill,quant,check")]
    assert check_order(names) == ()
    assert check_order(["quant", "distill"]) == ()
    assert "not won back" in check_order(["distill", "prune"])[0]


def test_without_torch_it_says_how_to_get_it_and_layer_goes_on(
    samples: list[Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient, "find_spec", dict[str, object]().get)
    model = build(NET, WEIGHTS)
    student = disturbed(model, "w1", "w2")
    result = distill(model, student, samples[:40], level="model")
    assert result.notes == (
        "distill{level=model} was not done: torch is not installed: pip install "
        "'onnxslim-compiler[distill]'; level=layer was done instead.",
    )
    assert result.stats["level"] == "layer"
    assert result.changed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("minutes=0", "minutes=0 given, expected more than 0"),
        ("steps=-1", "steps=-1 given, expected 0 or more"),
        ("batch=-1", "batch=-1 given, expected 0 or more"),
        ("rate=-1", "rate=-1 given, expected 0 or more"),
        ("hidden=-1", "hidden=-1 given, expected 0 or more"),
        ("temperature=0", "temperature=0 given, expected more than 0"),
    ],
)
def test_options_out_of_range_are_refused(options: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build_passes(f"distill{{{options}}}")
