"""Pairs in ONNX Runtime: full rank is the layer, and lower ranks err as predicted, in any shape."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxslim import ir
from onnxslim.analyses.columns import columns
from onnxslim.analyses.linear import Linear, linear
from onnxslim.analyses.moments import moments_of
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.lowrank.candidates import Cut, pair, relative_error
from onnxslim.passes.lowrank.emit import Pair, can_pivot, emit
from onnxslim.passes.lowrank.pivot_write import pivot_in_place
from onnxslim.passes.lowrank.schemes import Geometry, Scheme, schemes
from onnxslim.passes.lowrank.survey import Site
from onnxslim.runtime.session import open_session

# float32 sums of at most a few hundred products, compared with the greatest output
ROUNDING = 2e-5


def one_node(op: str, x: Array, weights: list[Array], attributes: dict[str, object]) -> Model:
    """A model of one node with these constants and an input of any size."""
    rank = x.ndim
    dims = ",".join(f"d{i}" for i in range(rank))
    names = [f"w{i}" for i in range(len(weights))]
    text = "\n".join(
        [
            '<ir_version: 8, opset_import: ["" : 17]>',
            f"g (float[{dims}] x) => (float[{','.join(f'e{i}' for i in range(rank))}] y) {{",
            f"  y = {op}(x{''.join(', ' + n for n in names)})",
            "}",
        ]
    )
    # constants enter as inputs of the text and are made initializers here
    declared = "".join(
        f", float[{','.join(map(str, w.shape))}] {n}" for n, w in zip(names, weights, strict=True)
    )
    model = ir.parse_text(text.replace(" x) =>", f" x{declared}) =>"))
    node = next(iter(model.graph))
    editor = Editor(model)
    made = editor.node(
        op,
        [model.graph.inputs[0], *(editor.initializer(model.graph, f"c{n}", w)
                                  for n, w in zip(names, weights, strict=True))],
        outputs=["y_new"], attributes=attributes, name="layer",
    )  # fmt: skip
    editor.replace_node(node, [made], [made.outputs[0]])
    while len(model.graph.inputs) > 1:
        model.graph.inputs.pop()
    return model


def site_of(model: Model, x: Array) -> Site:
    """The only layer of a model, with the moments of one input."""
    layer = linear(next(iter(model.graph)))
    assert isinstance(layer, Linear)
    moments = moments_of(columns(x, layer.tap).astype(np.float64))
    window = layer.tap.window
    out = layer.out_features // layer.groups
    if window is None:
        rows = x.size // layer.in_features
        return Site("layer", layer, Geometry(1, out, layer.in_features, rows), moments)
    sites = tuple(x.shape[2:])
    channels = layer.in_features // prod(window.kernel)
    where = window.positions(sites)
    return Site(
        "layer",
        layer,
        Geometry(layer.groups, out, channels, len(x), window.kernel, sites, where),
        moments,
    )


def cut_of(scheme: Scheme) -> Cut:
    return Cut(scheme, 1e-4, {}, {})


def full_rank(site: Site, scheme: Scheme) -> int:
    """The rank at which factors lose nothing; of a Tucker cut the greatest that it has."""
    places = scheme.places(site.shape)
    if scheme.reduced:
        return min(site.shape.out, scheme.reduced * places)
    return min(site.shape.features // places, site.shape.out * places)


def run(model: Model, x: Array) -> Array:
    ir.verify(model)
    return open_session(model).run({"x": x})["y"]


def pivoted_later(model: Model, x: Array, made: Pair) -> Array:
    """What a pair gives that is written as any other and then pivoted."""
    copy = ir.snapshot(model)
    site = site_of(copy, x)
    emit(Editor(copy), site.layer, site.shape, replace(made, direct=None))
    pivot_in_place(Editor(copy), copy, ["y"], site.shape, made.scheme)
    assert any(ir.op(node) == "Gather" for node in copy.graph)
    ir.verify(copy)
    return run(copy, x)


def check_pairs(model: Model, x: Array) -> None:
    """Every cut: full rank equals the layer, a low rank errs by what was predicted."""
    wanted = run(model, x)
    for scheme in schemes(site_of(model, x).shape):
        if scheme.pivoted and not can_pivot(site_of(model, x).layer):
            continue
        full = full_rank(site_of(model, x), scheme)
        for rank in {full, max(1, full // 2)}:
            copy = ir.snapshot(model)
            site = site_of(copy, x)
            made = pair(site, cut_of(scheme), rank)
            predicted = relative_error(site, made)
            emit(Editor(copy), site.layer, site.shape, made)
            found = run(copy, x)
            assert [v.name for v in copy.graph.outputs] == ["y"]
            scale = float(np.abs(wanted).max())
            if scheme.pivoted:
                assert np.abs(pivoted_later(model, x, made) - found).max() <= ROUNDING * scale
            if rank == full and not scheme.reduced:
                assert np.abs(found - wanted).max() <= ROUNDING * scale
                continue
            error, power = energies(site.layer, found - wanted, wanted)
            measured = error / power
            # 2 %; below 1e-7 there is only the float32 rounding of second moments to measure
            assert measured == pytest.approx(predicted, rel=0.02, abs=1e-7)


def energies(layer: Linear, error: Array, wanted: Array) -> tuple[float, float]:
    """Squared error, and the variance of the output over its rows, both summed."""
    bias = ir.array(layer.bias)
    if layer.kind == "gemm" and bias is not None:  # one number per row is no constant output
        wanted = wanted - layer.beta * bias
    axis = 1 if layer.kind == "conv" else -1
    rows = np.moveaxis(wanted, axis, -1).reshape(-1, layer.out_features).astype(np.float64)
    power = float(np.square(rows - rows.mean(0)).sum())
    return float(np.square(error.astype(np.float64)).sum()), power


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Model, Array]:
    rank = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2]))
    per = st.integers(1, 3)
    kernel = tuple(draw(per) for _ in range(rank))
    channels, out = groups * draw(st.integers(1, 4)), groups * draw(st.integers(2, 5))
    dilations = tuple(draw(st.integers(1, 2)) for _ in range(rank))
    attributes: dict[str, object] = {
        "strides": [draw(st.integers(1, 2)) for _ in range(rank)],
        "dilations": list(dilations),
        "group": groups,
    }
    auto = draw(st.sampled_from(["", "", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto.startswith("SAME"):  # ONNX Runtime has no dilation with it
        attributes["dilations"] = [1] * rank
    if auto:
        attributes["auto_pad"] = auto
    else:
        attributes["pads"] = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    sites = [draw(st.integers(5, 7)) for _ in range(rank)]
    x = rng.standard_normal((3, channels, *sites)) + rng.standard_normal((1, channels, *[1] * rank))
    weights = [rng.standard_normal((out, channels // groups, *kernel)).astype(np.float32)]
    if draw(st.booleans()):
        weights.append(rng.standard_normal(out).astype(np.float32))
    return one_node("Conv", x.astype(np.float32), weights, attributes), x.astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_convolutions(case: tuple[Model, Array]) -> None:
    check_pairs(*case)


@settings(max_examples=25, deadline=None)
@given(
    st.booleans(), st.booleans(), st.sampled_from([1.0, 0.5]), st.sampled_from([1.0, 2.0]),
    st.sampled_from([None, (7,), (1, 7), (1,), (20, 1)]), st.integers(2, 9),
)  # fmt: skip
def test_gemms(
    trans_a: bool, trans_b: bool, alpha: float, beta: float, bias: tuple[int, ...] | None, size: int
) -> None:
    rng = np.random.default_rng(size)
    x = (rng.standard_normal((20, size)) + 1).astype(np.float32)
    weights = [rng.standard_normal((7, size) if trans_b else (size, 7)).astype(np.float32)]
    if bias is not None:
        weights.append(rng.standard_normal(bias).astype(np.float32))
    attributes: dict[str, object] = {
        "transA": int(trans_a), "transB": int(trans_b), "alpha": alpha, "beta": beta
    }  # fmt: skip
    fed: Array = np.ascontiguousarray(np.transpose(x)) if trans_a else x
    check_pairs(one_node("Gemm", fed, weights, attributes), fed)


@pytest.mark.parametrize("batch", [(20,), (4, 5), (2, 2, 5)])
@pytest.mark.parametrize("sizes", [(4, 9), (9, 4)])
def test_matmuls(batch: tuple[int, ...], sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((*batch, sizes[0])) + 1).astype(np.float32)
    check_pairs(one_node("MatMul", x, [rng.standard_normal(sizes).astype(np.float32)], {}), x)


def test_a_pair_runs_at_sizes_that_were_not_seen() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    weights = [rng.standard_normal((6, 3, 3, 3)).astype(np.float32)]
    attributes: dict[str, object] = {"pads": [1, 1, 1, 1], "strides": [2, 1]}
    other = rng.standard_normal((1, 3, 5, 11)).astype(np.float32)
    geometry = site_of(one_node("Conv", x, weights, attributes), x).shape
    for scheme in [s for s in schemes(geometry) if not s.reduced] + [Scheme("tucker", (), 3)]:
        model = one_node("Conv", x, weights, attributes)
        wanted = run(model, other)
        site = site_of(model, x)
        made = pair(site, cut_of(scheme), full_rank(site, scheme))
        emit(Editor(model), site.layer, site.shape, made)
        assert np.abs(run(model, other) - wanted).max() <= ROUNDING * np.abs(wanted).max()
