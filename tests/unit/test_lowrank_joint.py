"""Layers that share a first factor: against one layer of all, and each layer's loss by itself."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim.ir import Array
from onnxslim.passes.lowrank import joint, svd

SIZES = (5, 3, 8)


def case(seed: int = 0) -> tuple[list[Array], Array]:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((7, 7)) / np.arange(1, 8)
    covariance: Array = root @ np.transpose(root)
    return [rng.standard_normal((n, 7)) for n in SIZES], covariance


def test_with_equal_weights_it_is_the_svd_of_all_layers_as_one() -> None:
    matrices, covariance = case()
    task = joint.stacked(matrices, (1.0, 1.0, 1.0), covariance)
    found = svd.basis(task, 7)
    whole = svd.basis(svd.problem(np.concatenate(matrices), covariance, np.arange(7), 1), 7)
    assert found.loss == pytest.approx(whole.loss, abs=1e-12 * task.energy())


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_loss_of_each_layer_is_that_of_its_factors(rank: int) -> None:
    matrices, covariance = case()
    _, other = case(1)
    weights = (0.5, 4.0, 1.0)
    task = joint.stacked(matrices, weights, covariance)
    found = svd.basis(task, 7)
    first, seconds = joint.shared_factors(task, found, rank, SIZES, weights)
    for seen in (covariance, other):
        losses = joint.member_losses(task, found, seen, SIZES, [rank])[rank]
        for i, (matrix, second) in enumerate(zip(matrices, seconds, strict=True)):
            change = matrix - second @ first
            expected = weights[i] * svd.quadratic(change, seen)
            assert losses[i] == pytest.approx(expected, rel=1e-9, abs=1e-12 * task.energy())


def test_a_layer_of_greater_weight_loses_less() -> None:
    matrices, covariance = case()
    errors: list[float] = []
    for weight in (1.0, 100.0):
        weights = (weight, 1.0, 1.0)
        task = joint.stacked(matrices, weights, covariance)
        first, seconds = joint.shared_factors(task, svd.basis(task, 7), 3, SIZES, weights)
        errors.append(svd.quadratic(matrices[0] - seconds[0] @ first, covariance))
    assert errors[1] < errors[0]


def test_full_rank_gives_the_weights_back() -> None:
    matrices, covariance = case()
    weights = (1.0, 2.0, 3.0)
    task = joint.stacked(matrices, weights, covariance)
    first, seconds = joint.shared_factors(task, svd.basis(task, 7), 7, SIZES, weights)
    for matrix, second in zip(matrices, seconds, strict=True):
        assert np.abs(second @ first - matrix).max() < 1e-9
