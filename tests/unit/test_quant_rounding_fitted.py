"""Integers of few bits fitted with their scales: better than each part alone, never worse."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array
from onnxslim.passes.quant.quant import Quant
from onnxslim.passes.quant.weights.descent import descend
from onnxslim.passes.quant.weights.fitted import fit, row_errors
from onnxslim.passes.quant.weights.rounding import round_by_covariance
from onnxslim.passes.quant.weights.shrinkage import intensity, shrunk
from tests.quantizing import build, feeds, kernels, quantize, rounding_case, sqnr_db


def test_a_fit_is_better_than_second_order_rounding_alone_in_every_row() -> None:
    weight, scale, covariance = rounding_case(2, 6, 90)
    rounded = round_by_covariance(weight, scale, covariance, 7)
    integers, fitted = fit(weight, scale, covariance, 7)
    alone = row_errors(weight, scale, covariance, rounded)
    assert (row_errors(weight, fitted, covariance, integers) < alone).all()
    assert integers.max() == 7
    assert integers.min() >= -8
    assert (integers == np.rint(integers)).all()


def test_row_errors_are_the_quadratic_form() -> None:
    weight, scale, covariance = rounding_case(2, 3, 5)
    found = row_errors(weight, scale, covariance, np.rint(weight))
    for g, row in itertools.product(range(2), range(3)):
        dw = weight[g, row] - np.rint(weight[g, row]) * scale[g, row]
        assert found[g, row] == pytest.approx(dw @ covariance[g] @ dw, rel=1e-12)


def _moved(integers: Array, column: int, step: int) -> Array:
    moved: Array = np.array(integers, np.float64)
    moved[:, :, column] = np.clip(integers[:, :, column] + step, -7, 7)
    return moved


def test_descent_never_raises_the_error_and_ends_where_no_single_integer_helps() -> None:
    weight, scale, covariance = rounding_case(2, 6, 90)
    integers: Array = np.zeros(weight.shape)
    steps: Array = np.repeat(scale[:, :, None], 90, axis=2)
    ends: Array = np.full(weight.shape, 7.0)
    first = before = after = row_errors(weight, scale, covariance, integers)
    for _ in range(100):
        integers = descend(weight, steps, covariance, integers, -ends - 1, ends)
        after = row_errors(weight, scale, covariance, integers)
        assert (after <= before * (1 + 1e-9)).all()
        before = after
    assert after.sum() < 0.5 * first.sum()
    for column, step in itertools.product(range(0, 90, 7), (-1, 1)):
        moved = _moved(integers, column, step)
        assert (row_errors(weight, scale, covariance, moved) >= after * (1 - 1e-9)).all()


def test_one_scale_for_all_rows_stays_one() -> None:
    weight, scale, covariance = rounding_case(1, 6, 90)
    whole = np.broadcast_to(scale.max(), scale.shape)
    integers, fitted = fit(weight, whole, covariance, 7, shared=True)
    assert len(np.unique(fitted)) == 1
    nearest = np.clip(np.rint(weight / scale.max()), -7, 7)
    plain = row_errors(weight, whole, covariance, nearest).sum()
    assert row_errors(weight, fitted, covariance, integers).sum() < 0.5 * plain


@pytest.mark.parametrize("top", [7, 15, 31])
def test_dead_inputs_and_dead_rows_are_no_trouble(top: int) -> None:
    weight, _, covariance = rounding_case(2, 6, 90)
    covariance[:, 40:, :] = covariance[:, :, 40:] = 0
    weight[:, 1] = 0
    scale = np.where(weight.any(axis=2), np.abs(weight).max(axis=2) / top, 1.0)
    integers, fitted = fit(weight, scale, covariance, top)
    assert np.isfinite(fitted).all()
    assert (fitted > 0).all()
    assert not integers[:, 1].any()
    assert -top - 1 <= integers.min() <= integers.max() <= top


def test_the_shrinkage_is_that_of_the_formula() -> None:
    covariance, n = rounding_case(2, 1, 12)[2], 20
    found = intensity(covariance, n)
    for g in range(2):
        deviation = np.sqrt(np.diag(covariance[g]))
        r = covariance[g] / np.outer(deviation, deviation)
        squares = sum(r[i, j] ** 2 for i in range(12) for j in range(12))
        above = (1 - 2 / 12) * squares + 12**2
        below = (n + 1 - 2 / 12) * (squares - 12**2 / 12)
        assert found[g] == pytest.approx(min(above / below, 1), rel=1e-9)
    assert (np.linalg.eigvalsh(shrunk(covariance, n)) > 0).all()
    kept = np.diagonal(shrunk(covariance, n), axis1=1, axis2=2)
    assert np.array_equal(kept, np.diagonal(covariance, axis1=1, axis2=2))


def test_more_samples_are_believed_more_and_independent_inputs_never() -> None:
    covariance = rounding_case(2, 6, 90)[2]
    levels = np.stack([intensity(covariance, n) for n in (1, 10, 100, 10_000)])
    assert (np.diff(levels, axis=0) <= 0).all()
    assert (levels[-1] < 0.01).all()
    assert intensity(np.eye(5)[None] * 3, 1000).tolist() == [1.0]


def test_a_covariance_of_few_samples_serves_unseen_ones_better_when_shrunk() -> None:
    rng = np.random.default_rng(3)
    weight, scale, _ = rounding_case(1, 16, 64)
    rows = rng.normal(size=(24, 64))
    seen: Array = (np.transpose(rows) @ rows / len(rows))[None]
    true = np.eye(64)[None]
    believed = fit(weight, scale, seen, 7)
    doubted = fit(weight, scale, shrunk(seen, len(rows)), 7)
    error = row_errors(weight, doubted[1], true, doubted[0]).sum()
    assert error < 0.5 * row_errors(weight, believed[1], true, believed[0]).sum()


_LAYERS = {
    "conv": "h = Conv <kernel_shape = [3, 3]> (r, k, c)",
    "depthwise": "h = Conv <kernel_shape = [3, 3], group = 16> (r, kd, c)",
}


def _net(layer: str) -> ir.Model:
    return build(
        "net (float[N,3,16,16] x) => (float[N,16,14,14] y)"
        f" {{ a = Conv (x, w, c) r = Relu(a) {_LAYERS[layer]} y = Relu(h) }}",
        {"w": (16, 3, 1, 1), "k": (16, 16, 3, 3), "kd": (16, 1, 3, 3), "c": (16,)},
    )


def _integers(model: ir.Model) -> list[Array]:
    found = [ir.array(value) for value in model.graph.initializers.values()]
    kinds = (np.int8, ir.DataType.INT4.numpy())
    return [a.astype(int) for a in found if a is not None and a.dtype in kinds and a.ndim > 2]


@pytest.mark.parametrize("layer", _LAYERS)
@pytest.mark.parametrize(("bits", "top"), [(4, 7), (5, 15), (6, 31)])
def test_few_bits_fuse_and_beat_the_nearest_integers(layer: str, bits: int, top: int) -> None:
    before, samples = _net(layer), feeds(_net(layer), 8)
    nearest, fitted = _net(layer), _net(layer)
    options: dict[str, Any] = {"weight_bits": bits, "goal": 0.0, "wide_share": 0.0}
    options["ranges"] = "minmax"
    quantize(nearest, samples, scheme="int8", rounding="nearest", **options)
    quantize(fitted, samples, scheme="int8", **options)
    assert len(_integers(fitted)) == 2
    ends = [(int(a.min()), int(a.max())) for a in _integers(fitted)]
    assert all(low >= -top - 1 for low, _ in ends)
    assert max(high for _, high in ends) == top
    assert kernels(fitted)["QLinearConv"] == kernels(nearest)["QLinearConv"] >= 1
    assert sqnr_db(before, fitted, samples) > sqnr_db(before, nearest, samples)


def test_few_bits_need_a_scheme_that_has_them() -> None:
    assert Quant(scheme="int8", weight_bits=4).weight_bits == 4
    with pytest.raises(ValueError, match="weight_bits=3, expected 4 to 8"):
        Quant(scheme="int8", weight_bits=3)
    with pytest.raises(ValueError, match=r"weight_bits=4, expected 7 or 8 \(4 to 8 with"):
        Quant(scheme="dynamic", weight_bits=4)
