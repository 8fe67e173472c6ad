"""Cross-layer equalization: the same outputs, weights that one scale holds better."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxslim import ir
from onnxslim.analyses.held_out import split
from onnxslim.ir import Array, Editor, Model
from onnxslim.passes.quant.prepare.absorb import absorb
from onnxslim.passes.quant.prepare.equalize import (
    balancing,
    equalize,
    reach,
    rounding_error,
    within,
)
from onnxslim.passes.quant.prepare.neighbours import pairs
from onnxslim.targets import get_target
from tests.quantizing import build, feeds, outputs, quantize, seen_of, sqnr_db

TRIPLE = (
    "net (float[N,8,10,10] x) => (float[N,6] y)"
    " { a = Conv (x, w, c) r = Relu(a) d = Conv <group = 16> (r, k, e) s = Relu(d)"
    " b = Conv (s, v, f) t = LeakyRelu(b) m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (t)"
    " l = Flatten(m) y = Gemm(l, u, g) }"
)
BIASES = {"c": (16,), "e": (16,), "f": (12,), "g": (6,)}


def uneven(*shape: int, axis: int = 0) -> Array:
    """Random weights whose channels on an axis differ by up to a thousand in size."""
    rng = np.random.default_rng(sum(shape) + axis)
    sizes = np.exp(rng.uniform(-3.5, 3.5, shape[axis]))
    sizes = sizes.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    weight: Array = rng.normal(size=shape) * sizes / np.sqrt(np.prod(shape[1:]))
    return weight.astype(np.float32)


def triple() -> Model:
    weights = {"w": uneven(16, 8, 1, 1), "k": uneven(16, 1, 3, 3), "v": uneven(12, 16, 1, 1)}
    return build(TRIPLE, {**weights, **BIASES, "u": (192, 6)})


def test_the_outputs_are_the_same_and_the_weights_round_better() -> None:
    before, after = triple(), triple()
    assert equalize(Editor(after), 8) == 4
    ir.verify(after)
    for feed in feeds(before):
        one, two = outputs(before, feed)[0], outputs(after, feed)[0]
        assert np.abs(one - two).max() <= 1e-5 * np.abs(one).max()
    errors = [
        [_error(model, pair) for pair in (("w", "k"), ("k", "v"))] for model in (before, after)
    ]
    assert errors[1][0] < 0.5 * errors[0][0]
    assert errors[1][1] < 0.5 * errors[0][1]


def _error(model: Model, pair: tuple[str, str]) -> float:
    first, second = (_weight(model, name) for name in pair)
    columns = second if pair[1] == "k" else np.swapaxes(second, 0, 1)
    return rounding_error(first.reshape(16, -1), columns.reshape(16, -1), 8)


def _weight(model: Model, name: str) -> Array:
    found = ir.array(model.graph.initializers[name])
    assert found is not None
    return found


def test_a_second_time_changes_next_to_nothing() -> None:
    model = triple()
    equalize(Editor(model), 8)
    first = _error(model, ("w", "k"))
    equalize(Editor(model), 8)
    assert _error(model, ("w", "k")) == pytest.approx(first, rel=0.05)


def test_the_predicted_error_is_that_of_two_layers() -> None:
    rng = np.random.default_rng(2)
    a, b, x = rng.normal(size=(6, 5)), rng.normal(size=(6, 4)), rng.normal(size=(20000, 5))
    qa, qb = (np.rint(w / s) * s for w, s in ((a, np.abs(a).max() / 7), (b, np.abs(b).max() / 7)))
    signal: Array = x @ np.transpose(a)  # channels, whose covariance A A^T is not diagonal
    parts = [signal[:, [c]] * b[[c]] for c in range(6)]
    noise = [(x @ qa[c])[:, None] * qb[[c]] - part for c, part in enumerate(parts)]
    measured = sum((n**2).mean() for n in noise) / sum((p**2).mean() for p in parts)
    assert rounding_error(a, b, 4) == pytest.approx(measured, rel=0.1)


def test_one_scale_for_a_weight_gains_by_it() -> None:
    before, samples = triple(), feeds(triple(), 8)
    plain, scaled = triple(), triple()
    options = {"scheme": "int8", "per_channel": False, "goal": 0.0, "rounding": "nearest"}
    quantize(plain, samples, equalize="off", **options)  # type: ignore[arg-type]
    result = quantize(scaled, samples, **options)  # type: ignore[arg-type]
    assert result.stats["equalized"] == 4
    assert sqnr_db(before, scaled, samples) > sqnr_db(before, plain, samples) + 3


def test_scales_per_channel_need_it_only_where_asked_for() -> None:
    model = triple()
    assert "equalized" not in quantize(model, feeds(model), scheme="int8").stats
    model = triple()
    assert quantize(model, feeds(model), scheme="int8", equalize="on").stats["equalized"] == 4


def test_balancing_makes_both_ranges_equal() -> None:
    first, second = np.array([4.0, 0.25, 0.0, 1.0]), np.array([1.0, 4.0, 2.0, 0.0])
    s = balancing(first, second)
    assert s.tolist() == [2.0, 0.25, 1.0, 1.0]
    assert (first / s)[:2].tolist() == (second * s)[:2].tolist()


NOT = {
    "a clip": ("y", "a = Conv (x, w) r = Clip (a, zero, six) y = Conv (r, v)"),
    "another reader": ("z", "a = Conv (x, w) y = Conv (a, v) z = Relu(a)"),
    "a residual": ("y", "a = Conv (x, w) r = Add (a, x) y = Conv (r, v)"),
    "groups": ("y", "a = Conv (x, w) y = Conv <group = 2> (a, h)"),
    "a sigmoid": ("y", "a = Conv (x, w) r = Sigmoid (a) y = Conv (r, v)"),
}


@pytest.mark.parametrize("name", NOT)
def test_what_is_no_pair(name: str) -> None:
    output, nodes = NOT[name]
    more = ", float[N,8,4,4] z" if output == "z" else ""
    weights = {"w": (8, 8, 1, 1), "v": (8, 8, 1, 1), "h": (8, 4, 1, 1)}
    model = build(f"net (float[N,8,4,4] x) => (float[N,8,4,4] y{more}) {{ {nodes} }}", weights)
    assert pairs(model) == []
    assert equalize(Editor(model), 8) == 0


def test_a_weight_that_another_layer_reads_stays_as_it_is_there() -> None:
    body = (
        "net (float[N,8,4,4] x) => (float[N,8,4,4] y, float[N,8,4,4] z)"
        " { a = Conv (x, w) r = Relu(a) y = Conv (r, v) z = Conv (x, w) }"
    )
    before = build(body, {"w": uneven(8, 8, 1, 1), "v": (8, 8, 1, 1)})
    after, feed = ir.snapshot(before), feeds(before)[0]
    assert equalize(Editor(after), 8) == 2
    for one, two in zip(outputs(before, feed), outputs(after, feed), strict=True):
        assert np.abs(one - two).max() <= 1e-5 * np.abs(one).max()


# With an upper bound between

BOUNDED = (
    "net (float[N,8,10,10] x) => (float[N,12,8,8] y)"
    " { a = Conv (x, w, c) r = Clip(a, zero, six) d = Conv <group = 16> (r, k, e)"
    " s = Clip(d, zero, six) y = Conv (s, v, f) }"
)


def bounded() -> Model:
    """Some channels reach the bound, most stay far below it."""
    weights = {"w": uneven(16, 8, 1, 1), "k": uneven(16, 1, 3, 3), "v": uneven(12, 16, 1, 1)}
    weights["w"] *= 0.5
    return build(BOUNDED, {**weights, **BIASES}, 13)


def test_channels_that_reach_the_bound_keep_their_scale_and_the_outputs_are_the_same() -> None:
    before, samples = bounded(), feeds(bounded(), 8)
    after, seen = ir.snapshot(before), seen_of(before, samples)
    assert equalize(Editor(after), 8) == 0
    assert equalize(Editor(after), 8, seen=seen) == 3
    ir.verify(after)
    for feed in samples:
        one, two = outputs(before, feed)[0], outputs(after, feed)[0]
        assert np.abs(one - two).max() <= 1e-5 * np.abs(one).max()
    again = seen_of(after, samples)
    cut = seen["a"].max >= 6
    assert 0 < cut.sum() < 16
    assert again["a"].max[cut] == pytest.approx(seen["a"].max[cut], rel=1e-5)
    assert _error(after, ("w", "k")) < 0.8 * _error(before, ("w", "k"))


def test_divisors_within_a_bound() -> None:
    s, reach = np.array([2.0, 8.0, 0.1, 4.0]), np.array([1.5, 1.0, 0.5, 0.5])
    assert within(s, reach).tolist() == [1.0, 1.0, 0.5, 1.0]  # 4 in the middle of 2 and 8
    assert within(s, np.zeros(4)).tolist() == s.tolist()
    assert within(s, np.array([0.5, 0.5, 0.2, 0.5])).tolist() == (2 * s).tolist()


def test_more_slack_leaves_more_channels_as_they_are() -> None:
    (pair, _), samples = pairs(bounded(), bounded=True), feeds(bounded(), 8)
    seen = seen_of(bounded(), samples)
    little, much = (reach(pair, seen, slack) for slack in (0.0, 1.0))
    assert little is not None
    assert much is not None
    assert (little <= much).all()
    assert (little >= 1).sum() < (much >= 1).sum()
    assert reach(pair, {}, 0.0) is None


def test_it_is_kept_where_it_holds_on_samples_held_out() -> None:
    model, samples = bounded(), feeds(bounded(), 24)
    options: dict[str, Any] = {"scheme": "int8", "goal": 0.0, "rounding": "nearest"}
    plain, scaled = ir.snapshot(model), ir.snapshot(model)
    quantize(plain, samples, per_channel=False, equalize="off", **options)
    result = quantize(scaled, samples, per_channel=False, **options)
    assert result.stats["equalized"] == 3
    others = feeds(model, 48)[24:]
    assert sqnr_db(model, scaled, others) > sqnr_db(model, plain, others) + 1


def test_it_is_not_where_other_samples_go_beyond() -> None:
    model, samples = bounded(), feeds(bounded(), 24)
    _, held = split(len(samples), most_out=16)
    for index in held:
        samples[index] = {"x": 8 * samples[index]["x"]}
    options: dict[str, Any] = {"scheme": "int8", "per_channel": False, "rounding": "nearest"}
    assert "equalized" not in quantize(ir.snapshot(model), samples, **options).stats


def test_targets_with_one_scale_for_the_weights_of_some_layers_gain_there() -> None:
    body = (
        "net (float[N,8] x) => (float[N,8] y) { a = Gemm <transB = 1> (x, w, c) r = Relu(a)"
        " y = Gemm <transB = 1> (r, v, c) }"
    )
    model = build(body, {"w": uneven(8, 8), "v": uneven(8, 8, axis=1), "c": (8,)})
    found = {
        name: quantize(ir.snapshot(model), feeds(model), get_target(name), scheme="int8").stats
        for name in ("qnn", "ort-cpu")
    }
    assert found["qnn"]["equalized"] == 2
    assert "equalized" not in found["ort-cpu"]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kinds=st.lists(st.sampled_from(["plain", "depthwise", "padded", "large"]), min_size=2,
                   max_size=4),
    between=st.lists(st.sampled_from(["Relu", "Clip", "LeakyRelu", "MaxPool", ""]), min_size=4,
                     max_size=4),
    branch=st.integers(0, 4),
)  # fmt: skip
def test_random_chains_stay_the_same(
    seed: int, kinds: list[str], between: list[str], branch: int
) -> None:
    model = chain(seed, kinds, between, branch)
    samples = feeds(model, 3)
    after, seen = ir.snapshot(model), seen_of(model, samples)
    absorb(Editor(after), seen, 0.0)
    equalize(Editor(after), 8, seen=seen_of(after, samples))
    ir.verify(after)
    for feed in samples:
        for one, two in zip(outputs(model, feed), outputs(after, feed), strict=True):
            assert np.abs(one - two).max() <= 2e-5 * max(np.abs(one).max(), 1)


KINDS = {
    "plain": ("", (6, 6, 1, 1)),
    "depthwise": ("<group = 6>", (6, 1, 1, 1)),
    "padded": ("<pads = [1, 1, 1, 1]>", (6, 6, 3, 3)),
    "large": ("<kernel_shape = [2, 2]>", (6, 6, 2, 2)),
}
BETWEEN = {
    "Relu": "r{i} = Relu(c{i})",
    "Clip": "r{i} = Clip(c{i}, zero, six)",
    "LeakyRelu": "r{i} = LeakyRelu(c{i})",
    "MaxPool": "r{i} = MaxPool <kernel_shape = [2, 2]> (c{i})",
    "": "r{i} = Identity(c{i})",
}


def chain(seed: int, kinds: list[str], between: list[str], branch: int) -> Model:
    """Convolutions one after the other; the result of one of them may be an output as well. Two of
    the same kind may share their weight."""
    rng, x, nodes = np.random.default_rng(seed), "x", list[str]()
    weights: dict[str, Array] = {}
    for i, kind in enumerate(kinds):
        attributes, shape = KINDS[kind]
        weights.setdefault(f"w{kind}", uneven(*shape))
        weights[f"b{i}"] = (8 * rng.normal(size=6)).astype(np.float32)
        nodes.append(f"c{i} = Conv {attributes} ({x}, w{kind}, b{i})")
        nodes.append(BETWEEN[between[i]].format(i=i))
        x = f"r{i}"
    more = f", float[N,6,?,?] r{branch}" if branch < len(kinds) - 1 else ""
    outs = f"float[N,6,?,?] {x}{more}"
    return build(f"net (float[N,6,12,12] x) => ({outs}) {{ {' '.join(nodes)} }}", weights, 13)
