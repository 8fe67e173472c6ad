"""A fit to what the activation leaves: auxiliary outputs against a search, and the fit's error."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim import ir
from onnxslim.ir import Array
from onnxslim.passes.refit import activation as maths
from onnxslim.passes.refit.activation import Piece, Pieces

INFINITY = float("inf")
RELU = (Piece(-INFINITY, 0, 0, 0), Piece(0, INFINITY, 1, 0))
CLIP = (Piece(-INFINITY, -1, 0, -1), Piece(-1, 2, 1, 0), Piece(2, INFINITY, 0, 2))
LEAKY = (Piece(-INFINITY, 0, 0.1, 0), Piece(0, INFINITY, 1, 0))


@pytest.mark.parametrize("pieces", [RELU, CLIP, LEAKY], ids=["relu", "clip", "leaky"])
@pytest.mark.parametrize("weight", [0.01, 1.0])
def test_auxiliary_outputs_are_the_best_of_a_fine_search(pieces: Pieces, weight: float) -> None:
    rng = np.random.default_rng(0)
    target = maths.apply(pieces, rng.standard_normal(50) * 2)
    now = rng.standard_normal(50) * 2
    found = maths.auxiliary(pieces, target, now, weight)

    def cost(t: Array) -> Array:
        found: Array = np.square(target - maths.apply(pieces, t)) + weight * np.square(t - now)
        return found

    search = np.linspace(-8, 8, 4001)[:, None]
    assert (cost(found) <= cost(search).min(axis=0) + 1e-12).all()


def test_the_fit_errs_less_after_the_activation_than_least_squares() -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((4000, 6)).astype(np.float32)
    hidden = rng.standard_normal((4000, 6)) * 0.7
    matrix = rng.standard_normal((5, 6))
    y: Array = z @ np.transpose(matrix) + hidden @ rng.standard_normal((6, 5)) - 1.0
    ones = np.concatenate([z, np.ones((len(z), 1))], axis=1)
    solved: Array = np.linalg.lstsq(ones, y, rcond=None)[0]
    start: Array = np.transpose(solved[:6])
    bias: Array = solved[6]
    found, shifted = maths.fit(z, y, start, bias, RELU, 1e-6)
    before = maths.error(z, y, start, bias, RELU)
    assert maths.error(z, y, found, shifted, RELU) < 0.99 * before


def test_what_can_be_met_exactly_is() -> None:
    rng = np.random.default_rng(1)
    z = rng.standard_normal((500, 4)).astype(np.float32)
    matrix, bias = rng.standard_normal((3, 4)), rng.standard_normal(3)
    y: Array = z @ np.transpose(matrix) + bias
    found, shifted = maths.fit(z, y, matrix, bias, RELU, 1e-3)
    assert maths.error(z, y, found, shifted, RELU) < 1e-10


@pytest.mark.parametrize(
    ("after", "pieces"),
    [
        ("y = Relu(h)", RELU),
        ("y = LeakyRelu <alpha = 0.1> (h)", LEAKY),
        ("low = Constant <value = float {-1.0}> ()\n high = Constant <value = float {2.0}> ()\n"
         " y = Clip(h, low, high)", CLIP),
        ("y = Sigmoid(h)", None),
        ("r = Relu(h)\n y = Add(r, h)", None),
    ],
    ids=["relu", "leaky", "clip", "sigmoid", "two readers"],
)  # fmt: skip
def test_activations_that_are_known(after: str, pieces: Pieces | None) -> None:
    model = ir.parse_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] x) => (float[N,4] y) {{
          h = Identity(x)
          {after}
        }}"""
    )
    value = next(v for node in model.graph for v in node.outputs if v.name == "h")
    found = maths.activation(value)
    if pieces is None:
        assert found is None
        return
    assert found is not None
    assert len(found) == len(pieces)
    for one, other in zip(found, pieces, strict=True):
        assert (one.slope, one.offset) == pytest.approx((other.slope, other.offset))
