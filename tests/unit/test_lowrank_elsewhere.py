"""Losses on rows that a pair was not fitted to, and Tucker-2, against the factors themselves."""

from __future__ import annotations

import numpy as np
import pytest

from onnxslim.ir import Array
from onnxslim.passes.lowrank import svd, tucker
from onnxslim.passes.lowrank.schemes import Geometry, Scheme

CONV = Geometry(1, 10, 6, 1, (3, 2), (8, 8), (8, 8))
POINTWISE = Scheme("pointwise")


def covariance(seed: int, size: int) -> Array:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((size, size)) / np.arange(1, size + 1)
    found: Array = root @ np.transpose(root)
    return found


def task_of(scheme: Scheme, seed: int = 0) -> svd.Problem:
    matrix = np.random.default_rng(9).standard_normal((CONV.out, CONV.features))
    return svd.problem(
        matrix, covariance(seed, CONV.features), scheme.order(CONV), scheme.places(CONV)
    )


def loss(task: svd.Problem, second: Array, first: Array, other: Array) -> float:
    change = task.weight.reshape(len(task.weight), -1) - svd.product(second, first)
    return svd.quadratic(change, other.reshape(change.shape[1], -1))


@pytest.mark.parametrize(
    "scheme", [Scheme("channel", (0, 1)), Scheme("spatial", (0,)), POINTWISE], ids=lambda s: s.name
)
def test_the_loss_elsewhere_is_that_of_the_factors_there(scheme: Scheme) -> None:
    task, other = task_of(scheme), task_of(scheme, seed=1).covariance
    found = svd.basis(task, 99)
    ranks = range(1, min(5, len(found.first)) + 1)
    elsewhere = svd.loss_elsewhere(task, found, task.elsewhere(other), ranks)
    for rank in ranks:
        second, first = svd.factors(task, found, rank)
        # the ridges of 1e-10 differ by the order of the unknowns
        assert elsewhere[rank] == pytest.approx(loss(task, second, first, other), rel=1e-5)


def tucker_loss(task: svd.Problem, parts: tuple[Array, Array, Array], other: Array) -> float:
    last, middle, first = parts
    return loss(task, np.tensordot(last, middle, axes=(1, 0)), first, other)


def test_the_core_loses_what_was_predicted_here_and_elsewhere() -> None:
    task, other = task_of(POINTWISE), task_of(POINTWISE, seed=1).covariance
    first = svd.basis(task, 99).first[:3]
    found = tucker.core(task, first)
    elsewhere = tucker.core_elsewhere(first, found, task.elsewhere(other), range(1, 9))
    for rank in range(1, 9):
        parts = found.last[:, :rank], found.core[:rank], first
        assert found.loss[rank] == pytest.approx(
            tucker_loss(task, parts, task.covariance), rel=1e-6, abs=1e-9 * task.energy()
        )
        assert elsewhere[rank] == pytest.approx(tucker_loss(task, parts, other), rel=1e-6)


@pytest.mark.parametrize(("reduced", "rank"), [(2, 3), (3, 6), (5, 8)])
def test_alternating_lowers_the_loss_to_a_stationary_point(reduced: int, rank: int) -> None:
    task = task_of(POINTWISE)
    start = svd.basis(task, 99).first[:reduced]
    before = float(tucker.core(task, start).loss[rank])
    parts = tucker.tucker(task, start, rank)
    after = tucker_loss(task, parts, task.covariance)
    assert after <= before * (1 + 1e-9)
    rng = np.random.default_rng(0)
    for _ in range(20):  # in U and G it is the least there is
        step = 1e-3 * rng.standard_normal(parts[1].shape)
        moved = parts[0], parts[1] + step, parts[2]
        assert tucker_loss(task, moved, task.covariance) > after


def test_alternating_finds_more_than_the_first_guess() -> None:
    """The start looks at single places; the sweeps know how places go together."""
    gains: list[float] = []
    for seed in range(6):
        task = task_of(POINTWISE, seed)
        start = svd.basis(task, 99).first[:3]
        before = float(tucker.core(task, start).loss[5])
        parts = tucker.tucker(task, start, 5)
        gains.append(tucker_loss(task, parts, task.covariance) / before)
    assert min(gains) < 0.98


def test_tucker_of_full_ranks_gives_the_weight_back() -> None:
    task = task_of(POINTWISE)
    last, middle, first = tucker.tucker(task, svd.basis(task, 99).first, CONV.out)
    product = svd.product(np.tensordot(last, middle, axes=(1, 0)), first)
    weight = task.weight.reshape(CONV.out, -1)
    # solving with a Gram matrix of condition 1e4 and a ridge of 1e-10
    assert np.abs(product - weight).max() < 1e-4 * np.abs(weight).max()


def test_tucker_is_never_better_than_any_map_of_its_output_rank() -> None:
    task = task_of(POINTWISE)
    free = svd.basis(task_of(Scheme("channel", (0, 1))), 99)
    parts = tucker.tucker(task, svd.basis(task, 99).first[:4], 5)
    assert tucker_loss(task, parts, task.covariance) >= free.loss[5] * (1 - 1e-9)
