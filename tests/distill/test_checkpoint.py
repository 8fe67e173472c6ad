"""A training that was killed goes on where it was, and one that was done is not done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed: make test-distill")

from onnxslim import ir
from onnxslim.passes.distill.graph import checkpoint
from onnxslim.runtime.samples import Feed
from tests.distill.training import distill
from tests.quantizing import build, feeds
from tests.unit.test_distill_layer import NET, WEIGHTS, disturbed


@pytest.fixture(scope="module")
def samples() -> list[Feed]:
    return feeds(build(NET, WEIGHTS), 160, {"N": 1})


class Killed(Exception):
    """As if the process ended."""


def test_a_training_that_was_killed_goes_on_where_it_was(
    samples: list[Feed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.Checkpoint, "every", 0.0)
    monkeypatch.setattr(checkpoint.Checkpoint.__init__, "__defaults__", (0.0,))
    model = build(NET, WEIGHTS)
    options: dict[str, Any] = {"level": "model", "steps": 40, "batch": 16, "rate": 0.01}
    whole = disturbed(model, "w2")
    distill(model, whole, samples, **options)
    seen = 0

    def kill(what: str, done: int, total: int) -> None:
        nonlocal seen
        seen += what.startswith("loss")
        if seen == 25:
            raise Killed

    with pytest.raises(Killed):
        distill(model, disturbed(model, "w2"), samples, tmp_path, kill, **options)
    assert len(list(tmp_path.glob("distill/*.pt"))) == 1
    steps: list[str] = []

    def note(what: str, done: int, total: int) -> None:
        steps.append(what)

    student = disturbed(model, "w2")
    distill(model, student, samples, tmp_path, note, **options)
    assert sum(what.startswith("loss") for what in steps) == 40 - 24
    assert ir.to_bytes(student) == ir.to_bytes(whole)


def test_a_training_that_the_cache_holds_is_not_done_again(
    samples: list[Feed], tmp_path: Path
) -> None:
    model = build(NET, WEIGHTS)
    options: dict[str, Any] = {"level": "model", "steps": 30, "batch": 16, "rate": 0.01}
    steps: list[str] = []

    def note(what: str, done: int, total: int) -> None:
        steps.append(what)

    first, again = disturbed(model, "w2"), disturbed(model, "w2")
    distill(model, first, samples, tmp_path, note, **options)
    assert ir.to_bytes(first) != ir.to_bytes(again)
    steps.clear()
    result = distill(model, again, samples, tmp_path, note, **options)
    assert ir.to_bytes(first) == ir.to_bytes(again)
    assert not any(what.startswith("loss") for what in steps)
    assert "in an earlier run that the cache holds" in result.notes[0]
    assert result.stats["steps"] == 30
    options["rate"] = 1e-3
    distill(model, disturbed(model, "w2"), samples, tmp_path, note, **options)
    assert sum(what.startswith("loss") for what in steps) == 30
