"""Values between the input and the outputs that a narrower student is taught by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: make test-distill")

from onnxslim import ir
from onnxslim.ir import Array, Model
from onnxslim.passes.distill.graph.api import torch
from onnxslim.passes.distill.graph.data import HELD, Pool
from onnxslim.passes.distill.graph.hints import Hint, Maps, by_feature, fit, places
from onnxslim.passes.distill.graph.probe import convert
from onnxslim.passes.distill.graph.program import Program
from onnxslim.passes.distill.graph.weights import Weights, find
from onnxslim.runtime.samples import FeedList
from tests.distill.training import distill
from tests.quantizing import build, feeds, sqnr_db

RNG = np.random.default_rng(3)


def net(width: int, **weights: Array) -> Model:
    """A convolution, what stands for its features on average, and a layer after it."""
    shapes: dict[str, Sequence[int] | Array] = {
        "w1": (width, 3, 3, 3), "b1": (width,), "w2": (width, 4), **weights,
    }  # fmt: skip
    return build(
        """g (float[N,3,8,8] x) => (float[N,4] y) {
          c = Conv <pads=[1,1,1,1]> (x, w1, b1)  p = GlobalAveragePool (c)  f = Flatten (p)
          y = MatMul (f, w2) }""",
        shapes,
    )


@pytest.fixture(scope="module")
def teacher() -> Model:
    """Its 12 features are mixtures of 6."""
    mixture = np.concatenate([np.eye(6), RNG.normal(size=(6, 6))])
    basis = RNG.normal(size=(6, 27)) / np.sqrt(27)
    return net(12, w1=(mixture @ basis).reshape(12, 3, 3, 3).astype(np.float32))


@pytest.mark.parametrize(("name", "axis"), [("c", 1), ("f", 1)])
def test_a_map_foretells_what_depends_linearly_on_the_student(
    teacher: Model, name: str, axis: int
) -> None:
    basis = ir.array(teacher.graph.initializers["w1"])
    assert basis is not None
    student = net(6, w1=basis[:6])
    samples = FeedList(feeds(teacher, 40, {"N": 1}))
    program = convert(student, samples[0], 1)
    assert isinstance(program, Program)
    weights = Weights(student, find(student, program), program.dtype, "cpu")
    program.fold(weights.given().keys())
    pool = Pool(samples, teacher, student, program, ["y", name], 1)
    maps = fit([Hint(name, axis)], pool, weights, [range(16), range(16, 32)])
    hurried = fit([Hint(name, axis)], pool, weights, [range(16), range(16, 32)], lambda: True)
    alone = fit([Hint(name, axis)], pool, weights, [range(16)])
    assert torch.equal(hurried.factors[name], alone.factors[name])
    (part,) = pool.batch(range(32, 40))  # that it was not fitted to
    with torch.no_grad():
        found = program.run(part.feed, weights.given(), ["y", name])
    assert maps.factors[name].shape == (7, 12)
    wanted = part.wanted[name]
    error = (maps.ahead(name, found[name]) - wanted).square().mean() / wanted.var()
    assert float(error) < 1e-3
    assert maps.ahead("y", found["y"]) is found["y"]


def test_hints_lie_halfway_and_last_and_are_small() -> None:
    names = [f"v{i}" for i in range(20)]
    theirs = dict.fromkeys(names, (1, 16, 8, 8)) | {"v10": (1, 16, 4, 4), "v18": (1, 16)}
    ours = {name: (1, 8, *shape[2:]) for name, shape in theirs.items()}
    assert places(names, theirs, ours, 100) == [Hint("v10", 1), Hint("v18", 1)]
    crowd = HELD // (4 * 2 * 16 * 4 * 4)  # as many as fit of v10
    assert places(names, theirs, ours, crowd) == [Hint("v10", 1), Hint("v18", 1)]
    assert places(names, theirs, ours, crowd + 1) == [Hint("v18", 1)]


def test_values_of_other_shapes_are_no_hints() -> None:
    theirs = {"a": (1, 16, 8, 8), "b": (1, 16), "c": (2, 16), "d": (16,), "e": (1, 4, 16)}
    ours = {"a": (1, 8, 4, 8), "b": (1, 8, 2), "c": (1, 16), "d": (16,)}
    assert not places([*theirs], theirs, ours, 1)
    assert places(["e"], theirs, {"e": (1, 4, 8)}, 1) == [Hint("e", 2)]
    assert places(["e"], theirs, theirs, 1) == [Hint("e", 2)]
    assert places(["a"], theirs, theirs, 1) == [Hint("a", 1)]


def test_a_narrower_student_is_taught_by_what_lies_between(teacher: Model) -> None:
    samples = feeds(teacher, 240, {"N": 1})
    basis = ir.array(teacher.graph.initializers["w1"])
    assert basis is not None
    given = net(6, w1=basis[:6])
    answers, before = list[Model](), sqnr_db(teacher, given, samples[200:])
    for hidden in (0.0, 0.5):
        student = ir.snapshot(given)
        options: dict[str, Any] = {
            "level": "model",
            "steps": 100,
            "batch": 32,
            "rate": 0.01,
            "hidden": hidden,
        }
        distill(teacher, student, samples[:200], **options)
        answers.append(student)
        assert sqnr_db(teacher, student, samples[200:]) > before + 1
    assert ir.to_bytes(answers[0]) != ir.to_bytes(answers[1])


def test_the_variance_is_that_of_single_features() -> None:
    """Over samples of different lengths."""
    answers = [{"h": RNG.normal(size=(1, n, 4)) + 100 * np.arange(4)} for n in (3, 5, 8)]
    rows = np.concatenate([one["h"][0] for one in answers])
    maps = Maps({"h": 2}, {"h": torch.ones(4, 4)})
    (found,) = by_feature(maps, answers)
    assert (found.name, found.kind) == ("h", "numbers")
    assert found.variance == pytest.approx(rows.var(0).mean())
