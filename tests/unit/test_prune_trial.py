"""Which groups share a trial: the cost of trials grows with the layers, not with their square."""

from __future__ import annotations

from typing import cast

import pytest

from onnxslim.analyses.axes import Group, Layer
from onnxslim.passes.prune.effort import affordable
from onnxslim.passes.prune.trial import together


def group(name: str, kind: str, readers: int) -> Group:
    return Group(name, kind, (), (), cast("tuple[Layer, ...]", (None,) * readers))


def test_few_groups_have_a_trial_each() -> None:
    groups = [group(str(i), "channels", 1 + i % 3) for i in range(40)]
    assert sorted(together(groups)) == [[i] for i in range(40)]


def test_of_many_neighbours_that_are_alike_share_one() -> None:
    groups = [group(str(i), "heads" if i % 2 else "channels", 1) for i in range(100)]
    groups[50] = group("stream", "channels", 7)
    found = together(groups)
    assert sorted(i for trial in found for i in trial) == list(range(100))
    assert [50] in found
    assert max(len(trial) for trial in found) == 3
    assert [0, 2, 4] in found
    assert all(len({groups[i].kind for i in trial}) == 1 for trial in found)


@pytest.mark.parametrize(("macs", "expected"), [(1.0, 64), (1e11, 10), (1e15, 8)])
def test_samples_are_as_many_as_the_work_allows(macs: float, expected: int) -> None:
    assert affordable(1e12, macs, 8, 64) == expected
