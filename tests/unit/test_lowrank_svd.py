"""The maths of the pair on hand-made moments, against slow oracles."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim.ir import Array
from onnxslim.passes.lowrank import svd
from onnxslim.passes.lowrank.schemes import Geometry, Scheme, schemes

CONV = Geometry(1, 10, 4, 1, (3, 2), (8, 8), (8, 8))


def random_problem(seed: int, scheme: Scheme, shape: Geometry, rank: int) -> svd.Problem:
    """Weights [out, d] and a covariance of the given rank."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((shape.out, shape.features))
    root = rng.standard_normal((shape.features, rank)) / np.arange(1, rank + 1)
    covariance: Array = root @ np.transpose(root)
    return svd.problem(matrix, covariance, scheme.order(shape), scheme.places(shape))


def loss_of(task: svd.Problem, second: Array, first: Array) -> float:
    change = task.weight.reshape(len(task.weight), -1) - svd.product(second, first)
    size = change.shape[1]
    return svd.quadratic(change, task.covariance.reshape(size, size))


@pytest.mark.parametrize("features", [6, 20])
def test_one_place_reaches_the_whitened_singular_values(features: int) -> None:
    shape = Geometry(1, 12, features, 1)
    task = random_problem(0, Scheme("linear"), shape, features)
    found = svd.basis(task, 99)
    values, vectors = np.linalg.eigh(task.covariance.reshape(features, features))
    root: Array = (vectors * np.sqrt(values)) @ np.transpose(vectors)
    singular = np.linalg.svd(task.weight.reshape(12, -1) @ root, compute_uv=False)
    for rank in range(1, len(found.first) + 1):
        expected = float(np.sum(singular[rank:] ** 2))
        second, first = svd.factors(task, found, rank)
        # rounding of eigenvalues: 1e-16 of the energy for each of the 20 features
        assert found.loss[rank] == pytest.approx(expected, abs=1e-12 * task.energy())
        assert loss_of(task, second, first) == pytest.approx(expected, abs=1e-12 * task.energy())


@pytest.mark.parametrize("scheme", schemes(CONV), ids=lambda s: f"{s.name}{s.first}")
def test_the_loss_of_every_rank_is_that_of_its_factors(scheme: Scheme) -> None:
    task = random_problem(1, scheme, CONV, CONV.features)
    found = svd.basis(task, 99)
    for rank in range(1, len(found.first) + 1):
        second, first = svd.factors(task, found, rank)
        # both solve normal equations with a ridge of 1e-10
        assert loss_of(task, second, first) == pytest.approx(
            float(found.loss[rank]), rel=1e-6, abs=1e-8 * task.energy()
        )


@pytest.mark.parametrize("scheme", schemes(CONV), ids=lambda s: f"{s.name}{s.first}")
@pytest.mark.parametrize("known", [5, 24])
def test_full_rank_gives_the_weight_back(scheme: Scheme, known: int) -> None:
    task = random_problem(2, scheme, CONV, known)
    covariance = svd.damped(task.covariance.reshape(24, 24), 1e-4).reshape(task.covariance.shape)
    task = svd.Problem(task.weight, covariance)
    found = svd.basis(task, 99)
    second, first = svd.factors(task, found, len(found.first))
    weight = task.weight.reshape(10, -1)
    assert np.abs(svd.product(second, first) - weight).max() < 1e-9 * np.abs(weight).max()


def test_the_second_factor_cannot_be_improved() -> None:
    scheme = Scheme("spatial", (0,))
    task = random_problem(3, scheme, CONV, CONV.features)
    second, first = svd.factors(task, svd.basis(task, 99), 4)
    least = loss_of(task, second, first)
    rng = np.random.default_rng(0)
    for _ in range(20):
        step = 1e-3 * rng.standard_normal(second.shape)
        assert loss_of(task, second + step, first) > least


def test_the_spatial_loss_is_no_better_than_any_matrix_of_its_rank() -> None:
    """A pair with two places has rank at most 2 r: the SVD of that rank bounds it from below."""
    split = Scheme("spatial", (0,))
    free = svd.basis(random_problem(4, Scheme("channel", (0, 1)), CONV, 24), 99)
    found = svd.basis(random_problem(4, split, CONV, 24), 99)
    for rank in range(1, 6):
        assert found.loss[rank] >= free.loss[min(2 * rank, len(free.first))] * (1 - 1e-9)


def test_factors_are_balanced() -> None:
    task = random_problem(5, Scheme("linear"), Geometry(1, 12, 16, 1), 16)
    second, first = svd.factors(task, svd.basis(task, 99), 6)
    spread = np.sqrt(np.sum((first @ task.covariance[0, :, 0, :]) * first, axis=1))
    assert np.linalg.norm(second, axis=(0, 1)) == pytest.approx(spread, rel=1e-9)


def test_a_rank_out_of_range_is_refused() -> None:
    task = random_problem(6, Scheme("linear"), Geometry(1, 4, 4, 1), 4)
    with pytest.raises(ValueError, match="rank 5 given, expected 1 to 4"):
        svd.factors(task, svd.basis(task, 99), 5)


def test_inputs_that_never_vary_give_no_loss_and_no_nan() -> None:
    zero = np.zeros((6, 6))
    task = svd.problem(np.ones((4, 6)), svd.damped(zero, 0.5), np.arange(6), 1)
    second, first = svd.factors(task, svd.basis(task, 3), 1)
    assert np.isfinite(second).all()
    assert np.isfinite(first).all()
    assert task.energy() == 0
