"""The language model trained here in few bits: perplexity on articles that nothing has seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.metrics import perplexity
from models.samples import read_samples
from onnxslim import ir
from onnxslim.ir import Model
from onnxslim.passes.quant.quant import Quant
from onnxslim.runtime.decode import is_language_model
from onnxslim.runtime.samples import Feed
from onnxslim.runtime.session import open_session
from tests.quantizing import quantize

MODELS = Path(__file__).resolve().parents[2] / "models"


def decoder() -> Model:
    return ir.load(MODELS / "decoder.onnx")


def samples(part: str, count: int) -> Sequence[Feed]:
    return [feed for feed, _ in read_samples(MODELS / f"decoder_{part}.npz")][:count]


def scored(model: Model) -> float:
    session, feeds = open_session(model), samples("eval", 4)
    outputs = [session.run(feed) for feed in feeds]
    return float(perplexity(outputs, [feed["input_ids"][0] for feed in feeds]))


def stored_bytes(model: Model) -> int:
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def test_8_bits_lose_less_than_half_a_percent() -> None:
    model = decoder()
    assert is_language_model(model)
    before, size = scored(model), stored_bytes(model)
    result = quantize(model, scheme="weight")
    assert [layer.op for layer in result.layers].count("MatMul") == 21  # q, k and v are one
    assert result.layers[-1].op == "Gather"
    assert scored(model) < before * 1.005
    assert stored_bytes(model) < 0.32 * size


@pytest.mark.slow
def test_4_bits_with_data_lose_less_than_one_percent_and_less_than_without() -> None:
    calib = samples("calib", 16)
    before = scored(decoder())
    losses: list[float] = []
    for given in (None, calib):
        model = decoder()
        quantize(model, given, scheme="weight", weight_bits=4)
        losses.append(float(np.log(scored(model) / before)))
    assert losses[1] < 0.01
    assert losses[1] < losses[0]


@pytest.mark.slow
def test_the_pass_is_the_same_twice() -> None:
    models = [decoder(), decoder()]
    for model in models:
        quantize(model, samples("calib", 4), scheme="weight", weight_bits=4)
    assert ir.checksum(models[0]) == ir.checksum(models[1])
    assert Quant(scheme="weight").table_bits == 8
