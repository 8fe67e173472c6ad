"""Over random layers: the matrix times the rows of the tap is what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxslim import ir
from onnxslim.analyses.columns import columns, feature_count, row_count
from onnxslim.analyses.linear import Linear, linear
from onnxslim.runtime.session import open_session

Array = npt.NDArray[Any]

# Sums of at most 600 products of numbers below 1 in float32: the error is below
# 600 * 2^-24 * 600 = 0.02 in the worst case and near sqrt(600) * 2^-24 * 25 = 4e-5 in practice.
TOLERANCE = 1e-4


def one_node(text: str, weights: dict[str, Array]) -> tuple[ir.Model, Linear]:
    model = ir.parse_text(text)
    editor = ir.Editor(model)
    (node,) = model.graph
    for name, weight in weights.items():
        index = [v.name if v is not None else None for v in node.inputs].index(name)
        node.replace_input_with(index, editor.initializer(model.graph, f"{name}_w", weight))
    model.graph.inputs[:] = [v for v in model.graph.inputs if v.name not in weights]
    layer = linear(node)
    assert isinstance(layer, Linear), layer
    return model, layer


def by_rows(layer: Linear, x: Array) -> Array:
    """The layer's output as [groups * out/groups, n], from its matrix and the rows of its tap."""
    rows = columns(x, layer.tap)
    n, d = row_count(layer.tap, x.shape), feature_count(layer.tap, x.shape)
    assert rows.shape == (layer.groups, n, d)
    bias = layer.bias_vector()
    assert bias is not None
    product: Array = np.matmul(layer.matrix(), np.transpose(rows, (0, 2, 1)))
    return product.reshape(layer.out_features, -1) + bias[:, None]


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[str, dict[str, Array], Array]:
    rank = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    channels, outs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    strides = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    dilations = draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank))
    pads = draw(st.lists(st.integers(0, 2), min_size=2 * rank, max_size=2 * rank))
    auto = draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if auto.startswith("SAME"):
        dilations = [1] * rank
    spatial = draw(st.lists(st.integers(5, 7), min_size=rank, max_size=rank))
    batch, seed = draw(st.integers(1, 2)), draw(st.integers(0, 99))
    bias = draw(st.booleans())
    padding = f"pads = {pads}" if auto == "NOTSET" else f'auto_pad = "{auto}"'
    shape = ", ".join(map(str, [batch, channels, *spatial]))
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[{shape}] x, float w, float b) => (float y) {{
      y = Conv <group = {groups}, strides = {strides}, dilations = {dilations}, {padding}>
        (x, w{", b" if bias else ""})
    }}"""
    weights = {"w": normal(seed, outs, channels // groups, *kernel)}
    weights |= {"b": normal(seed + 1, outs)} if bias else {}
    if not bias:
        text = text.replace(", float b", "")
    return text, weights, normal(seed + 2, batch, channels, *spatial)


@settings(max_examples=150, deadline=None)
@given(convolutions())
def test_conv(case: tuple[str, dict[str, Array], Array]) -> None:
    text, weights, x = case
    model, layer = one_node(text, weights)
    (expected,) = open_session(model).run({"x": x}).values()
    channels_first = np.moveaxis(expected, 1, 0).reshape(layer.out_features, -1)
    assert np.abs(by_rows(layer, x) - channels_first).max() < TOLERANCE
    assert np.array_equal(layer.from_matrix(layer.matrix()), weights["w"])


@settings(max_examples=40, deadline=None)
@given(
    trans=st.tuples(st.booleans(), st.booleans()),
    factors=st.sampled_from([(1.0, 1.0), (0.5, 2.0), (-2.0, 0.25)]),
    bias=st.sampled_from([None, (), (1,), (4,), (1, 4)]),
    seed=st.integers(0, 99),
)
def test_gemm(
    trans: tuple[bool, bool],
    factors: tuple[float, float],
    bias: tuple[int, ...] | None,
    seed: int,
) -> None:
    x = normal(seed, 3, 5)
    weights = {"w": normal(seed + 1, *((4, 3) if trans[1] else (3, 4)))}
    if not trans[0]:
        x = np.ascontiguousarray(np.transpose(x))
    if bias is not None:
        weights["b"] = normal(seed + 2, *bias)
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[{x.shape[0]}, {x.shape[1]}] x, float w{"" if bias is None else ", float b"})
      => (float y) {{
      y = Gemm <transA = {int(trans[0])}, transB = {int(trans[1])},
                alpha = {factors[0]}, beta = {factors[1]}> (x, w{"" if bias is None else ", b"})
    }}"""
    model, layer = one_node(text, weights)
    (expected,) = open_session(model).run({"x": x}).values()
    assert np.abs(by_rows(layer, x) - np.transpose(expected)).max() < TOLERANCE
    assert np.array_equal(layer.from_matrix(layer.matrix()), weights["w"])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 3), max_size=3), st.integers(0, 99))
def test_matmul(leading: list[int], seed: int) -> None:
    x, weights = normal(seed, *leading, 6), {"w": normal(seed + 1, 6, 4)}
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[{", ".join(map(str, x.shape))}] x, float w) => (float y) {{ y = MatMul(x, w) }}"""
    model, layer = one_node(text, weights)
    (expected,) = open_session(model).run({"x": x}).values()
    assert np.abs(np.transpose(by_rows(layer, x)) - expected.reshape(-1, 4)).max() < TOLERANCE
    assert np.array_equal(layer.from_matrix(layer.matrix()), weights["w"])


@settings(max_examples=30, deadline=None)
@given(convolutions(), st.integers(0, 99))
def test_some_rows_are_those_of_all(case: tuple[str, dict[str, Array], Array], seed: int) -> None:
    text, weights, x = case
    _, layer = one_node(text, weights)
    every = columns(x, layer.tap)
    chosen = np.random.default_rng(seed).permutation(every.shape[1])[:5]
    assert np.array_equal(columns(x, layer.tap, chosen), every[:, chosen])
