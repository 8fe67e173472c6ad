"""Simplify on the committed networks, with batches of other sizes than that of the export."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array, Model
from onnxslim.runtime.session import open_session
from tests.simplified import broken, count, simplify

MODELS = Path(__file__).resolve().parents[2] / "models"

# name: nodes at most afterwards
NETWORKS = {"fashion_resnet": 22, "fashion_vgg": 17, "fashion_vit": 163}

# Some twenty layers, each a sum of up to 2304 products in another order, whose rounding grows with
# the root of their number (Higham, 3.1 and 4.2): 20 * sqrt(2304) * 2^-24 of the largest output.
LIMIT = 6e-5


@cache
def original(name: str) -> Model:
    return ir.load(MODELS / f"{name}.onnx")


@cache
def images() -> Array:
    return np.asarray(np.load(MODELS / "fashion_eval.npz")["input"][:5])


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@cache
def simplified(name: str) -> Model:
    model = ir.load(MODELS / f"{name}.onnx")
    simplify(model)
    return model


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_outputs_are_equal_at_every_batch(name: str, batch: int) -> None:
    feed = {"input": images()[:batch]}
    before = open_session(original(name), optimize="none").run(feed)
    after = open_session(simplified(name), optimize="none").run(feed)
    assert before.keys() == after.keys()
    for key, x in before.items():
        assert x.shape == after[key].shape
        assert np.abs(x - after[key]).max() <= LIMIT * np.abs(x).max()


def test_it_is_smaller_and_nothing_is_left_to_do(name: str) -> None:
    model = simplified(name)
    assert broken(original(name), model) is None
    assert count(model) <= NETWORKS[name]
