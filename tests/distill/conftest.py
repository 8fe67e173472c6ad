"""Samples for the small network of these tests."""

from __future__ import annotations

import pytest

from onnxslim.runtime.samples import Feed
from tests.quantizing import build, feeds
from tests.unit.test_distill_layer import NET, WEIGHTS


@pytest.fixture(scope="session")
def samples() -> list[Feed]:
    """240 rows."""
    return feeds(build(NET, WEIGHTS), 240, {"N": 1})
