"""Each file of `fold/`: what it shows, the pass with options, a model, and what it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.cases import check

CASES = sorted((Path(__file__).parent / "fold").glob("*.txt"))


def test_there_are_cases() -> None:
    assert len(CASES) >= 15


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_case(path: Path) -> None:
    check(path, "fold")
