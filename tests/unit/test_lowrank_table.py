"""A table cut in two: the loss of reading and of a head that shares it, against the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from onnxslim.ir import Array
from onnxslim.passes.lowrank.table import (
    Reading,
    Split,
    expected,
    head_error,
    read_error,
    readings,
    shares,
    split,
    weighted,
)


def case() -> tuple[Array, Array, Array]:
    """Rows [40, 6], how often each is read, and the covariance of a head's input."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 6)) / np.arange(1, 7)
    often = rng.random(40) * (rng.random(40) < 0.5)
    root = rng.standard_normal((6, 6))
    covariance: Array = root @ np.transpose(root)
    return rows, often / often.sum(), covariance


def change(rows: Array, found: Split, rank: int) -> Array:
    rest: Array = rows - rows @ found.down[:, :rank] @ found.up[:rank]
    return rest


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_losses_are_those_of_the_rows(rank: int) -> None:
    rows, often, covariance = case()
    metric = 0.3 * np.eye(6) + covariance
    found = split(weighted(rows, often), metric)
    rest = change(rows, found, rank)
    read = read_error(rows, often, found, [rank])[rank]
    assert read == pytest.approx(float(often @ np.square(rest).sum(axis=1)), abs=1e-12)
    head = head_error(weighted(rows, np.ones(40)), covariance, found, [rank])[rank]
    assert head == pytest.approx(float(np.sum((rest @ covariance) * rest)), abs=1e-9)


def test_reading_alone_is_the_principal_components_of_what_is_read() -> None:
    rows, often, _ = case()
    found = split(weighted(rows, often), np.eye(6))
    values = np.linalg.svd(rows * np.sqrt(often)[:, None], compute_uv=False)
    for rank, loss in read_error(rows, often, found, range(1, 7)).items():
        assert loss == pytest.approx(float(np.sum(values[rank:] ** 2)), abs=1e-12)


def test_the_metric_of_the_head_lowers_its_loss() -> None:
    rows, _, covariance = case()
    power = weighted(rows, np.ones(40))
    plain = head_error(power, covariance, split(power, np.eye(6)), [3])[3]
    fitted = head_error(power, covariance, split(power, covariance), [3])[3]
    white = rows @ np.linalg.cholesky(covariance)
    values = np.linalg.svd(white, compute_uv=False)
    assert fitted == pytest.approx(float(np.sum(values[3:] ** 2)), rel=1e-6)
    assert fitted < plain


def test_a_metric_without_some_directions_gives_no_nan() -> None:
    rows, often, _ = case()
    found = split(weighted(rows, often), np.diag([1.0, 1, 1, 0, 0, 0]))
    assert np.isfinite(found.down).all()
    assert np.isfinite(found.up).all()


def test_every_sample_counts_as_one_however_long_it_is() -> None:
    reads = [np.array([0, 0, 0, 1]), np.array([2])]
    np.testing.assert_allclose(shares(reads, 4), [0.375, 0.125, 0.5, 0.0])


def test_rows_that_no_sample_reads_get_what_samples_read_alone() -> None:
    # row 0 is common; of each sample's two reads the other is its own: half, and one sample of
    # nothing else counted in: more than the most of ten, less with 19 more that read row 0 alone
    own = [np.array([0, n]) for n in range(1, 10)]
    few = expected(own, 20)
    assert few[10:].sum() == pytest.approx(0.5)
    many = expected([*own, *[np.array([0])] * 19], 20)
    mass = (9 * 0.5 + 1) / 29
    np.testing.assert_allclose(many[10:], mass / 10)
    np.testing.assert_allclose(many[1:10], (1 - mass) * 0.5 / 28)
    assert many.sum() == pytest.approx(1.0)


def test_rows_near_those_that_are_read_are_expected_rather() -> None:
    rng = np.random.default_rng(0)
    chance = 1 / (50 + np.arange(4000.0))
    reads = [rng.choice(4000, 10, p=chance / chance.sum()) for _ in range(100)]
    unseen = np.delete(np.arange(4000), np.unique(np.concatenate(reads)))
    found = expected(reads, 4000)[unseen] / (chance / chance.sum())[unseen]
    common, rare = found[unseen < 500].mean(), found[unseen >= 2000].mean()
    assert 0.5 < common < 2
    assert 0.5 < rare < 2  # by even shares .24 and 2.05
    shuffled = rng.permutation(4000)
    spread = expected([shuffled[read] for read in reads], 4000)
    assert np.std(spread[shuffled[unseen]]) < 0.5 * np.mean(spread[shuffled[unseen]])


def test_where_every_row_was_read_none_is_expected_besides() -> None:
    reads = [np.array([0, 1]), np.array([2])]
    np.testing.assert_allclose(expected(reads, 3), shares(reads, 3))


def flat(often: Array) -> tuple[Array, Array]:
    """Rows [400, 64] of which no direction stands out, and how often each is read."""
    rows = np.random.default_rng(0).standard_normal((400, 64))
    return rows, often / often.sum()


def least(found: Sequence[Reading], numbers: int) -> tuple[float, Reading, int]:
    """Of a table [400, 64] in at most so many numbers: loss, reading and rank."""
    every = [
        (loss, reading, rank)
        for reading in found
        for rank, loss in reading.read.items()
        if reading.numbers((400, 64), rank) <= numbers
    ]
    return min(every, key=lambda one: one[0])


def test_rows_read_often_stay_where_that_loses_less_for_the_same_numbers() -> None:
    rows, often = flat(np.append(np.full(64, 100.0), np.ones(336)))
    found = readings(rows, often, often, range(1, 64), np.eye(64))
    loss, reading, rank = least(found, 32 * 464)
    assert set(range(64)) <= set(reading.kept.tolist())
    rest = change(rows, reading.split, rank)
    rest[reading.kept] = 0.0
    assert loss == pytest.approx(float(often @ np.square(rest).sum(axis=1)))
    assert loss < 0.6 * found[0].read[32]


def test_rows_read_alike_are_all_cut() -> None:
    rows, often = flat(np.ones(400))
    found = readings(rows, often, often, range(1, 64), np.eye(64))
    _, reading, _ = least(found, 32 * 464)
    assert len(reading.kept) == 0
    for rank, loss in read_error(rows, often, reading.split, range(1, 64)).items():
        assert reading.read[rank] == pytest.approx(loss, abs=1e-12)


def test_a_whole_row_takes_no_place_in_the_narrow_table() -> None:
    rows, often = flat(np.ones(400))
    none, some = readings(rows, often, often, [3], np.eye(64))[:2]
    assert none.numbers((400, 64), 3) == 3 * (400 + 64)
    assert some.numbers((400, 64), 3) == 3 * (384 + 1 + 64) + 17 * 64 + 2 * 400


def test_of_wide_rows_fewer_numbers_are_tried() -> None:
    rng = np.random.default_rng(0)
    often = np.full(2100, 1 / 2100)

    def counts(width: int) -> list[int]:
        rows = rng.standard_normal((2100, width))
        return [len(x.kept) for x in readings(rows, often, often, [1], np.eye(width))]

    assert counts(8) == [0, 16, 64, 256, 512, 1024]
    assert counts(1024) == [0, 64, 512]
