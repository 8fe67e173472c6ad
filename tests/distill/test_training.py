"""Students trained on the teacher's answers: what changes, what stays, and how it ends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: make test-distill")

from onnxslim import ir
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.distill.graph import data, train
from onnxslim.passes.distill.graph.api import torch
from onnxslim.passes.distill.graph.blocks import bottlenecks
from onnxslim.passes.distill.graph.fuse import FUSED
from onnxslim.passes.distill.graph.loss import loss_of, targets_of
from onnxslim.passes.distill.graph.probe import convert, reasons
from onnxslim.passes.distill.graph.program import Program
from onnxslim.passes.distill.graph.train import Trainer
from onnxslim.passes.distill.graph.weights import Weights, find
from onnxslim.passes.distill.grids import grid_of
from onnxslim.runtime.samples import Feed
from tests.distill.training import distill
from tests.quantizing import build, feeds, quantize, sqnr_db
from tests.unit.test_distill_layer import NET, WEIGHTS, blind, disturbed, skeleton, views


@pytest.mark.parametrize(
    "options",
    [{"level": "model"}, {"level": "block"}, {"level": "model", "hidden": 0.5, "temperature": 2.0}],
)
def test_a_student_learns_what_the_teacher_answers_to_samples_not_seen(
    samples: list[Feed], options: dict[str, Any]
) -> None:
    model = build(NET, WEIGHTS)
    student = disturbed(model, "w1", "w2")
    before, was = sqnr_db(model, student, samples[200:]), skeleton(student)
    result = distill(model, student, samples[:200], steps=100, batch=32, **options)
    assert result.stats["level"] == options["level"]
    assert float(result.stats["error_after"]) < float(result.stats["error_before"])
    assert sqnr_db(model, student, samples[200:]) > before + 3
    assert skeleton(student) == was


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("portable", [True, False])
def test_a_quantized_student_keeps_its_types_and_bits(
    samples: list[Feed], bits: int, portable: bool
) -> None:
    model = build(NET, WEIGHTS)
    student = ir.snapshot(model)
    options: dict[str, Any] = {"weight_bits": bits, "wide_share": 0.0} if bits < 8 else {}
    quantize(student, samples[:50], scheme="int8", rounding="nearest", portable=portable, **options)
    grids = {str(n.outputs[0].name): g for n in student.graph if (g := grid_of(n)) is not None}
    before, was = sqnr_db(model, student, samples[200:]), skeleton(student)
    given = ir.snapshot(student)
    result = distill(model, student, samples[:200], level="model", steps=60, batch=32)
    assert float(result.stats["error_after"]) <= float(result.stats["error_before"])
    assert sqnr_db(model, student, samples[200:]) > before - 0.5
    alone = ir.snapshot(given)
    fitted = distill(model, alone, samples[:200], level="layer").layers
    assert [row.node for row in result.layers] == [row.node for row in fitted]
    if bits < 8:
        assert fitted
        assert sqnr_db(model, student, samples[200:]) > sqnr_db(model, alone, samples[200:]) - 0.5
        assert sqnr_db(model, student, samples[200:]) > before + 0.5
    assert skeleton(student) == was
    for node in student.graph:
        grid = grid_of(node)
        if grid is not None and grid.codes.dtype != np.int32:
            centred, own = (
                grid.codes.astype(np.float64) - grid.zero,
                grids[str(node.outputs[0].name)],
            )
            assert (centred >= own.low).all()
            assert (centred <= own.high).all()


def _weights(student: Model, feed: Feed) -> tuple[Program, Weights]:
    program = convert(student, feed, 1)
    assert isinstance(program, Program), program
    weights = Weights(student, find(student, program), program.dtype, "cpu")
    program.fold(weights.given().keys())
    return program, weights


def test_untrained_weights_are_written_back_as_they_were(samples: list[Feed]) -> None:
    student = build(NET, WEIGHTS)
    quantize(student, samples[:50], scheme="int8", portable=True)
    before = ir.to_bytes(student)
    _, weights = _weights(student, samples[0])
    weights.write(student)
    assert ir.to_bytes(student) == before


def test_quantized_activations_are_one_step_each_that_gives_what_two_gave(
    samples: list[Feed],
) -> None:
    student = build(NET, WEIGHTS)
    quantize(student, samples[:50], scheme="int8", portable=True)
    program = convert(student, samples[0], 1)
    assert isinstance(program, Program), program
    fed = {name: torch.from_numpy(array) for name, array in samples[0].items()}
    before = program.run(fed)
    pairs = sum(step.op == "QuantizeLinear" for step in program.steps)
    program.fold(())
    ops = [step.op for step in program.steps]
    assert (ops.count(FUSED), ops.count("QuantizeLinear")) == (pairs, 0)
    assert pairs > 2
    torch.testing.assert_close(program.run(fed), before)


def test_the_scale_of_a_bias_stays_the_product_of_the_others(samples: list[Feed]) -> None:
    student = build(NET, WEIGHTS)
    quantize(student, samples[:50], scheme="int8", portable=True)
    _, weights = _weights(student, samples[0])
    with torch.no_grad():
        for name, leaf in weights.leaves.items():
            if name.startswith("scale"):
                leaf.add_(0.3)
    weights.write(student)
    seen = 0
    for node in student.graph:
        if ir.op(node) != "Conv":
            continue
        scales = [ir.array(v.producer().inputs[1]) for v in node.inputs if v and v.producer()]  # type: ignore[union-attr]
        one, two, bias = scales
        assert one is not None
        assert two is not None
        assert bias is not None
        np.testing.assert_allclose(one * two, bias, rtol=1e-5)
        seen += 1
    assert seen == 2


def test_equal_scales_of_activations_stay_equal(samples: list[Feed]) -> None:
    student = build(NET, WEIGHTS)
    quantize(student, samples[:50], scheme="int8", portable=True)
    _, weights = _weights(student, samples[0])
    p, f = "p.scale", "f.scale"  # before and after a Flatten
    leaves = [n for n in weights.leaves if n in (f"scale {p}", f"scale {f}")]
    assert len(leaves) == 1
    assert torch.equal(weights.scale(p), weights.scale(f))


CUT = """g (float[N,4] x) => (float[N,3] y) {
  a = MatMul (x, w1)  d = Det (q)  m = Mul (a, d)  r = Tanh (m)  y = MatMul (r, w2) }"""


def test_what_torch_lacks_freezes_what_it_depends_on() -> None:
    body = CUT.replace("d = Det (q)", "b = Unsqueeze (a, one_)  n = LpPool <kernel_shape=[1]> (b)"
                       "  d = Squeeze (n, one_)")  # fmt: skip
    model = build(body, {"w1": (4, 5), "w2": (5, 3), "one_": np.array([1])})
    calib = feeds(model, 160, {"N": 1})
    program = convert(model, calib[0], 1)
    assert isinstance(program, Program), program
    found = find(model, program)
    assert (found.floats, found.frozen) == (["w2"], ["w1"])
    assert [d.reason for d in reasons(program)] == [
        "LpPool: no gradient is known for this operator; what it depends on is not trained"
    ]
    student = disturbed(model, "w2")
    first = student.graph.initializers["w1"].const_value
    result = distill(model, student, calib, level="model", steps=80, batch=32, rate=0.05)
    assert result.changed
    assert sqnr_db(model, student, calib) > sqnr_db(model, disturbed(model, "w2"), calib) + 5
    assert student.graph.initializers["w1"].const_value is first


def test_an_output_that_cannot_be_differentiated_is_named_and_layer_goes_on() -> None:
    model = build("g (float[N,4,4] x) => (float[N,4,4] y) { a = MatMul (x, w1)  "
                  "y = LpPool <kernel_shape=[1]> (a) }", {"w1": (4, 4)})  # fmt: skip
    student = disturbed(model, "w1")
    result = distill(model, student, feeds(model, 160, {"N": 1}), level="model", steps=5)
    assert result.stats["level"] == "layer"
    assert re.search(
        r"distill\{level=model\} was not done: output 'y' cannot be differentiated: LpPool 'y': "
        r"no gradient is known for this operator; level=layer was done instead\.", result.notes[0]
    )  # fmt: skip
    assert result.changed


def test_other_outputs_than_the_teachers_are_said(samples: list[Feed]) -> None:
    model = build(NET, WEIGHTS)
    student = build(NET.replace("float[N,6] y", "float[N,6] z").replace("y =", "z ="), WEIGHTS)
    result = distill(model, student, samples[:160], level="model", steps=5)
    assert not result.changed
    assert "other outputs than the teacher, which has y" in result.notes[0]


def test_a_loss_that_is_no_number_ends_it_with_the_best_weights(
    samples: list[Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(NET, WEIGHTS)
    student = disturbed(model, "w1", "w2")
    plain, count = Trainer._loss, 0  # pyright: ignore[reportPrivateUsage]

    def broken(self: Trainer, part: Any) -> Any:
        nonlocal count
        count += torch.is_grad_enabled()
        return plain(self, part) * (float("nan") if count > 60 else 1.0)

    monkeypatch.setattr(Trainer, "_loss", broken)
    result = distill(model, student, samples[:200], level="model", steps=100, batch=32, rate=3e-3)
    assert any("the loss became nan in step 61" in note for note in result.notes)
    assert float(result.stats["error_after"]) < float(result.stats["error_before"])


def test_steps_give_the_same_bytes_in_each_run(samples: list[Feed]) -> None:
    model = build(NET, WEIGHTS)
    made: list[bytes] = []
    for _ in range(2):
        student = disturbed(model, "w2")
        distill(model, student, samples[:160], level="model", steps=30, batch=16)
        made.append(ir.to_bytes(student))
    assert made[0] == made[1]


def test_texts_of_different_lengths_are_learnt_together_without_their_padding() -> None:
    body = """g (float[N,S,6] x, int64[N,S] attention_mask) => (float[N,S,4] y) {
      h = MatMul (x, w1)  t = Tanh (h)  m = MatMul (t, w2)  c = Cast <to=1> (attention_mask)
      u = Unsqueeze (c, two)  n = Sub (one, u)  k = Mul (n, noise)  y = Add (m, k) }"""
    model = build(body, {"w1": (6, 16), "w2": (16, 4), "two": np.array([2]),
                         "noise": np.full(4, 50, np.float32)})  # fmt: skip
    rng = np.random.default_rng(0)
    calib: list[Feed] = []
    for length in rng.integers(3, 7, 200):
        mask = np.ones((1, length), np.int64)
        mask[0, length - 1] = 0
        x = rng.normal(size=(1, length, 6)).astype(np.float32)
        calib.append({"x": x, "attention_mask": mask})
    student = disturbed(model, "w1")
    result = distill(model, student, calib, level="model", steps=150, batch=16)
    assert float(result.stats["loss_after"]) < 0.3 * float(result.stats["loss_before"])


def test_a_batch_in_several_parts_has_the_gradient_of_the_whole(
    samples: list[Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(NET, WEIGHTS)
    made: list[Model] = []
    for limit in (data.AT_ONCE, 1 << 16):
        monkeypatch.setattr(data, "AT_ONCE", limit)
        student = disturbed(model, "w2")
        distill(model, student, samples[:160], level="model", steps=5, batch=16, rate=1e-3)
        made.append(student)
    assert data.fitting(model, samples[0], 1) < 8
    assert sqnr_db(made[0], made[1], samples[200:]) > 60  # sums in another order


@pytest.mark.parametrize("often", [False, True])
def test_half_of_a_batch_are_mixes_where_samples_are_seen_often(
    samples: list[Feed], monkeypatch: pytest.MonkeyPatch, often: bool
) -> None:
    model, count = build(NET, WEIGHTS), 80
    plain, mixed = data.Pool.batch, list[int]()

    def noted(self: data.Pool, indices: Sequence[int]) -> Any:
        mixed.append(sum(i >= count for i in indices))
        return plain(self, indices)

    monkeypatch.setattr(data.Pool, "batch", noted)
    monkeypatch.setattr(train, "OFTEN", 5 if often else 6)  # 64 samples learnt, 20 steps of 16
    student = disturbed(model, "w2")
    distill(model, student, samples[:count], level="model", steps=20, batch=16, rate=1e-3)
    assert set(mixed) == ({0, 8} if often else {0})  # none of those held out


def test_the_loss_is_chosen_by_what_the_teacher_answers() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(8, 5)).astype(np.float32)
    shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    maps = rng.normal(size=(8, 3, 4)).astype(np.float32)
    found = targets_of([{"s": scores, "p": shares, "m": maps}], ["s", "p", "m"])
    assert [target.kind for target in found] == ["scores", "probabilities", "numbers"]
    arrays: dict[str, Array] = {"s": scores, "p": shares, "m": maps}
    for target in found:
        same = torch.tensor(arrays[target.name])
        assert float(loss_of(target, same, same)) == pytest.approx(0, abs=1e-6)
        assert float(loss_of(target, same * 0.5 + 0.1, same)) > 0.01


def test_blocks_end_where_everything_goes_through() -> None:
    body = """g (float[N,8] x) => (float[N,4] y) {
      a = MatMul (x, w1)  r = Relu (a)  b = MatMul (r, w2)  s = Add (b, a)  t = Relu (s)
      y = MatMul (t, w3) }"""
    model = build(body, {"w1": (8, 6), "w2": (6, 6), "w3": (6, 4)})
    program, weights = _weights(model, feeds(model, 1)[0])
    assert bottlenecks(program, weights.given().keys()) == ["a", "s", "t"]


def test_few_samples_are_said_and_not_trained_on_unasked(samples: list[Feed]) -> None:
    model = build(NET, WEIGHTS)
    asked = distill(model, disturbed(model, "w2"), samples[:40], level="model", steps=5)
    assert asked.stats["level"] == "model"
    assert "trained on 40 samples, which are few" in asked.notes[0]
    chosen = distill(model, disturbed(model, "w2"), samples[:40], steps=5)
    assert chosen.stats["level"] == "layer"
    assert "distill saw 40 samples, too few to train on" in chosen.notes[0]


@pytest.mark.parametrize("rate", [1e-3, 1e-2])
def test_views_of_few_photos_are_not_learnt_by_heart(rate: float) -> None:
    model, student = blind()
    unseen = views(100, 1, 100)
    before = sqnr_db(model, student, unseen)
    result = distill(model, student, views(8, 8, 0), level="model", steps=200, rate=rate)
    assert result.stats["held_out"] == 16
    assert sqnr_db(model, student, unseen) > before - 0.05
    if not result.changed:
        note = "stayed as it was: the 16 samples held out would not err less beyond chance"
        assert note in result.notes[-1]


def test_a_student_without_an_error_stays_as_it_is(samples: list[Feed]) -> None:
    model = build(NET, WEIGHTS)
    student = ir.snapshot(model)
    before = ir.to_bytes(student)
    result = distill(model, student, samples[:160], level="model", steps=10, batch=16)
    assert not result.changed
    assert ir.to_bytes(student) == before


def test_constants_that_several_nodes_read_stay_one() -> None:
    body = """g (float[N,6] x) => (float[N,6] y) {
      a = MatMul (x, w)  t = Tanh (a)  y = MatMul (t, w) }"""
    model = build(body, {"w": (6, 6)})
    student = disturbed(model, "w")
    was = skeleton(student)
    result = distill(model, student, feeds(model, 200, {"N": 1}), level="model", steps=80, batch=32)
    assert result.changed
    assert skeleton(student) == was
    assert Editor(student).remove_dead() == 0
