"""The output error that statistics predict for a changed weight is the one that is measured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.analyses.layer_stats import LayerStats, Statistics, output_error
from onnxslim.analyses.linear import Linear, linear, linear_layers
from onnxslim.ir import Array
from onnxslim.pipeline.analysis import AnalysisManager
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import FeedList
from onnxslim.runtime.session import open_session
from onnxslim.targets.base import Target

MODELS = Path(__file__).parents[2] / "models"
EVERY_ROW = 10**9


def images(count: int) -> Array:
    with np.load(MODELS / "fashion_calib.npz") as content:
        return np.asarray(content["input"][:count], np.float32)


def statistics(model: ir.Model, count: int, request: LayerStats) -> Statistics:
    feeds = [{"input": image[None]} for image in images(count)]
    with ThreadPoolExecutor(1) as executor:
        env = Environment(Target("test"), executor, calib=FeedList(feeds), threads=2)
        return AnalysisManager(model, env).get(request)


def four_bits(matrix: Array) -> Array:
    """Rounded to 15 levels per output, symmetric."""
    scale = np.abs(matrix).max(axis=-1, keepdims=True) / 7
    return np.asarray(np.round(matrix / scale) * scale, matrix.dtype)


def measured_error(model: ir.Model, layer: Linear, changed: Array, x: Array) -> float:
    """Mean over rows of the squared norm of what the layer's output moves by."""
    name = str(layer.node.outputs[0].name)
    other = ir.snapshot(model)
    twin = next(n for n in ir.nodes(other) if n.outputs[0].name == name)
    found = linear(twin)
    assert isinstance(found, Linear)
    weight = ir.Editor(other).unshare(found.node, found.weight_index)
    ir.Editor(other).replace_initializer(weight, layer.from_matrix(changed))
    total, rows = 0.0, 0
    sessions = [open_session(m, extra_outputs=[name], threads=2) for m in (model, other)]
    for part in np.split(x, len(x) // 16):
        before, after = (s.run({"input": part}, [name])[name] for s in sessions)
        total += float(np.square(after.astype(np.float64) - before).sum())
        rows += before.size // layer.out_features
    return total / rows


@pytest.mark.parametrize("name", ["vgg", "resnet", "vit"])
@pytest.mark.parametrize(
    ("count", "rows", "tolerance"),
    [
        (16, {"positions": EVERY_ROW, "per_feature": EVERY_ROW}, 0.002),  # float32 runs only
        (96, {}, 0.02),  # the default: some of the rows of each image
    ],
)
def test_predicted_error_is_the_measured_one(
    name: str, count: int, rows: dict[str, int], tolerance: float
) -> None:
    model = ir.load(MODELS / f"fashion_{name}.onnx")
    layers, _ = linear_layers(model)
    assert len(layers) >= 7
    found = statistics(model, count, LayerStats((), tuple(x.tap for x in layers), **rows))
    assert not found.missing
    x = images(count)
    wrong: dict[str, float] = {}
    for layer in layers:
        matrix = layer.matrix()
        changed = four_bits(matrix)
        nothing = np.zeros(layer.out_features)  # the bias stays as it is
        predicted = output_error(found.moments[layer.tap], changed - matrix, nothing)
        measured = measured_error(model, layer, changed, x)
        assert measured > 0
        if abs(predicted / measured - 1) > tolerance:
            wrong[layer.tap.tensor] = predicted / measured - 1
    assert not wrong
