"""Rows of (z, y) for a refit: what two models give side by side."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.linear import Linear, linear
from onnxslim.ir import Editor, Model
from onnxslim.passes.refit.rows import Wanted, collect
from onnxslim.passes.refit.stretches import Pair, halves
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import FeedList
from onnxslim.runtime.session import open_session
from onnxslim.targets import get_target
from tests.unit.test_lowrank_pass import MLP, MLP_SHAPES, build, feeds


@pytest.fixture(scope="module")
def env() -> Iterator[Environment]:
    with ThreadPoolExecutor(1) as executor:
        yield Environment(get_target("ort-cpu"), executor, calib=feeds((16, 64)))


def layer_of(model: Model, output: str) -> Linear:
    found = linear(next(n for n in model.graph if n.outputs[0].name == output))
    assert isinstance(found, Linear)
    return found


def test_inputs_are_those_of_one_model_and_outputs_of_the_other(env: Environment) -> None:
    original = build(MLP, MLP_SHAPES)
    model = ir.snapshot(original)
    first = model.graph.initializers["w1_value"]
    content = ir.array(first)
    assert content is not None
    Editor(model).replace_initializer(first, 2 * content)
    some = env.calib
    assert isinstance(some, FeedList)
    wanted = Wanted(layer_of(model, "two"), "two", keep=True)
    pair = Pair.of(original, model, halves(some, 256), 1)
    (seen,) = collect(pair, [wanted], env)
    old, new = (open_session(m, extra_outputs=["hidden", "two"]) for m in (original, model))
    pairs = [
        np.concatenate([new.run(f)["hidden"], old.run(f)["two"]], axis=1)
        for f in halves(some, 256).fit
    ]
    np.testing.assert_allclose(seen[0].all_rows()[0], np.concatenate(pairs), rtol=1e-5, atol=1e-5)
    assert seen[1].moments is None
    assert seen[1].all_rows().shape[1] == 16 * len(halves(some, 256).held_out)
