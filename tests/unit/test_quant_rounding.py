"""Second-order rounding: it lowers the very error that it is meant to, and never breaks."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array
from onnxslim.passes.quant.static import WIDEST
from onnxslim.passes.quant.weights.rounding import round_by_covariance
from tests.quantizing import build, feeds, quantize, rounding_case, sqnr_db


def _error(weight: Array, scale: Array, integers: Array, covariance: Array) -> float:
    """tr(dW C dW^T), over all groups."""
    dw = weight - integers * scale[:, :, None]
    return float(np.einsum("god,gde,goe->", dw, covariance, dw))


def test_the_error_of_the_output_is_far_below_that_of_the_nearest_integers() -> None:
    weight, scale, covariance = rounding_case()
    nearest = np.clip(np.rint(weight / scale[:, :, None]), -7, 7)
    rounded = round_by_covariance(weight, scale, covariance, 7)
    found = _error(weight, scale, rounded, covariance)
    assert found < 0.25 * _error(weight, scale, nearest, covariance)
    assert np.abs(rounded).max() == 7


def test_it_is_the_greedy_solution_column_by_column() -> None:
    """After column i is fixed, the columns after it take the values that minimize the error."""
    weight, scale, covariance = rounding_case(1, 3, 70)
    rounded = round_by_covariance(weight, scale, covariance, 127)[0]
    damped: Array = covariance[0] + 0.01 * np.trace(covariance[0]) / 70 * np.eye(70)
    left = weight[0].copy()
    for i in range(70):
        fixed = np.clip(np.rint(left[:, i] / scale[0]), -127, 127)
        assert fixed.tolist() == rounded[:, i].tolist()
        done = weight[0][:, : i + 1] - rounded[:, : i + 1] * scale[0][:, None]
        # argmin over the rest r of tr([done r] H [done r]^T) = -done H_di H_ii^-1
        coupled: Array = np.linalg.solve(damped[i + 1 :, i + 1 :], damped[i + 1 :, : i + 1])
        rest: Array = -np.einsum("od,rd->or", done, coupled)
        left[:, i + 1 :] = weight[0][:, i + 1 :] - rest


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_inputs_that_never_vary_are_no_trouble(share: float) -> None:
    weight, scale, covariance = rounding_case()
    dead = np.arange(150) >= 150 * share
    covariance[:, dead, :] = covariance[:, :, dead] = 0
    rounded = round_by_covariance(weight, scale, covariance, 7)
    assert np.isfinite(rounded).all()
    nearest = np.clip(np.rint(weight / scale[:, :, None]), -7, 7)
    assert (rounded[:, :, dead] == nearest[:, :, dead]).all()


@pytest.mark.parametrize(
    "layer",
    [
        "y = Conv <kernel_shape = [3, 3]> (h, k, c)",
        "y = Conv <kernel_shape = [3, 3], group = 16> (h, kd, c)",
    ],
)
def test_a_layer_is_better_rounded_in_its_own_layout(layer: str) -> None:
    def model() -> ir.Model:
        return build(
            "net (float[N,3,16,16] x) => (float[N,16,14,14] y)"
            f" {{ a = Conv (x, w, c) h = Relu(a) {layer} }}",
            {"w": (16, 3, 1, 1), "k": (16, 16, 3, 3), "kd": (16, 1, 3, 3), "c": (16,)},
        )

    before, samples = model(), feeds(model(), 8)
    nearest, second = model(), model()
    quantize(nearest, samples, rounding="nearest", ranges="minmax")
    quantize(second, samples, rounding="second_order", ranges="minmax")
    # Rounding of the activations is in both, so the gain is small, but it is there; a wrong layout
    # of the integers would give an error as large as the signal.
    assert sqnr_db(before, second, samples) > sqnr_db(before, nearest, samples)


@pytest.mark.parametrize(("features", "same"), [(64, False), (WIDEST + 1, True)])
def test_layers_that_are_too_wide_for_a_covariance_get_the_nearest_integers(
    features: int, same: bool
) -> None:
    body = f"net (float[N,{features}] x) => (float[N,8] y) {{ y = MatMul(x, w) }}"
    weights: list[Array] = []
    for rounding in ("nearest", "second_order"):
        model = build(body, {"w": (features, 8)})
        quantize(model, feeds(model), scheme="int8", rounding=rounding, ranges="minmax")
        found = [ir.array(v) for v in model.graph.initializers.values()]
        weights += [x for x in found if x is not None and x.shape == (features, 8)]
    assert [x.dtype for x in weights] == [np.int8, np.int8]
    assert np.array_equal(weights[0], weights[1]) == same
