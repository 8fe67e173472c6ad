"""The user's order is obeyed, a doubtful one warns, an impossible one fails."""

from __future__ import annotations

import pytest

from onnxslim.errors import ConfigError
from onnxslim.pipeline.order import DOUBTFUL, check_order


@pytest.mark.parametrize(("first", "then", "why"), DOUBTFUL)
def test_a_doubtful_order_warns_in_that_order_only(first: str, then: str, why: str) -> None:
    (warning,) = check_order([first, then])
    assert warning == f"'{first}' before '{then}' is doubtful: {why}; usually '{then},{first}'"
    assert check_order([then, first]) == ()


@pytest.mark.parametrize("names", [["quant", "lowrank"], ["lowrank", "quant"], ["fold", "check"]])
def test_orders_that_are_fine(names: list[str]) -> None:
    assert check_order(names) == ()


@pytest.mark.parametrize("names", [["check", "fold"], ["check", "check"]])
def test_the_check_comes_last_and_once(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="put it last, once"):
        check_order(names)
