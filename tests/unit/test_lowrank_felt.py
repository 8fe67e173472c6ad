"""The metric of a table: what the outputs feel of an error, by direction."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnxslim.ir import Array, Model
from onnxslim.passes.lowrank import felt as module
from onnxslim.passes.lowrank.felt import felt
from onnxslim.passes.lowrank.table import readings, split, weighted
from onnxslim.pipeline.base import Environment
from onnxslim.runtime.samples import FeedList
from onnxslim.targets import get_target
from tests.quantizing import build

SIZE = 8
ROWS = np.random.default_rng(0).standard_normal((40, SIZE)).astype(np.float32)
OUT = np.random.default_rng(1).standard_normal((SIZE, 6)).astype(np.float32)
OUT[4:] *= 0.01  # half of the directions hardly show
READS = "net (int64[N,T] ids) => (float[N,T,6] y) { e = Gather(table, ids) y = MatMul(e, w) }"
FIXED = "net (int64[1,T] ids) => (float[1,T,6] y) { e = Gather(table, ids) y = MatMul(e, w) }"
MIXED = """net (int64[N,T] ids) => (float[N,T,6] y) { e = Gather(table, ids)
 m = ReduceMean <axes = [0], keepdims = 1> (e) s = Add(e, m) y = MatMul(s, w) }"""


def model_of(body: str) -> Model:
    return build(body, {"table": ROWS, "w": OUT})


def samples(count: int = 6) -> list[dict[str, Array]]:
    rng = np.random.default_rng(2)
    return [{"ids": rng.integers(0, 40, (1, 2 + i % 3))} for i in range(count)]


def metric(body: str, given: list[dict[str, Array]]) -> Array | None:
    lengths = [feed["ids"].size for feed in given]
    with ThreadPoolExecutor(1) as executor:
        env = Environment(target=get_target("ort-cpu"), executor=executor, calib=FeedList(given))
        return felt(model_of(body), "e", ROWS, lengths, FeedList(given), env)


def test_it_is_that_of_a_linear_model() -> None:
    found = metric(READS, samples())
    assert found is not None
    wanted: Array = OUT.astype(np.float64) @ np.transpose(OUT)
    wanted = 0.97 * wanted * SIZE / np.trace(wanted) + 0.03 * np.eye(SIZE)
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-3)
    assert np.trace(found) == pytest.approx(SIZE)


def test_rows_cut_in_it_disturb_the_outputs_less() -> None:
    found = metric(READS, samples())
    assert found is not None
    often = np.full(40, 1 / 40)
    rows = ROWS.astype(np.float64)

    def error(inner: Array, rank: int) -> float:
        cut = split(weighted(rows, often), inner)
        return float(np.square((rows - rows @ cut.down[:, :rank] @ cut.up[:rank]) @ OUT).sum())

    assert error(found, 4) < 0.1 * error(np.eye(SIZE), 4)


def test_the_losses_of_every_rank_are_those_of_the_rows() -> None:
    found = metric(READS, samples())
    assert found is not None
    often = np.random.default_rng(3).random(40)
    rows = ROWS.astype(np.float64)
    none, some = readings(rows, often, often, range(1, 6), found)
    assert (len(none.kept), len(some.kept)) == (0, 16)
    for reading in (none, some):
        for rank, loss in reading.read.items():
            cut = reading.split
            rest = rows - rows @ cut.down[:, :rank] @ cut.up[:rank]
            rest[reading.kept] = 0.0
            assert loss == pytest.approx(float(np.sum(often[:, None] * (rest @ found) * rest)))


@pytest.mark.parametrize("body", [FIXED, MIXED])
def test_a_model_that_takes_no_batches_has_none(body: str) -> None:
    assert metric(body, samples()) is None


def test_few_samples_have_none() -> None:
    assert metric(READS, samples(3)) is None


def test_the_shortest_are_taken_as_far_as_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    work = float(SIZE * OUT.size)
    monkeypatch.setattr(module, "_WORK", work * (2 + 2 + 3 + 3))
    seen: list[int] = []

    class Looked(FeedList):
        def __getitem__(self, index: int) -> dict[str, Array]:
            seen.append(index)
            return dict(super().__getitem__(index))

    given = samples()
    with ThreadPoolExecutor(1) as executor:
        env = Environment(target=get_target("ort-cpu"), executor=executor, calib=FeedList(given))
        lengths = [feed["ids"].size for feed in given]
        assert felt(model_of(READS), "e", ROWS, lengths, Looked(given), env) is not None
    assert seen == [0, 3, 1, 4]
