"""The table of a target, and how targets are found."""

from __future__ import annotations

import pytest

from onnxslim.errors import ConfigError
from onnxslim.targets import get_target, targets


def test_a_target_is_found_by_its_name() -> None:
    assert get_target("ort-cpu").name == "ort-cpu"
    assert targets() == ("ort-cpu",)


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown target 'ort-cpuu'; did you mean 'ort-cpu'"):
        get_target("ort-cpuu")
    with pytest.raises(ConfigError, match="unknown target 'gpu0'; there is: ort-cpu"):
        get_target("gpu0")


def test_the_rules_are_consistent() -> None:
    target = get_target("ort-cpu")
    for op, rule in target.static.items():
        assert (rule.role == "linear") == (rule.weight is not None), op
        assert (rule.role == "move") == (rule.output == "same"), op
        assert (rule.role == "absorbed") == (rule.output == "absorbed"), op
        assert bool(rule.kernel) == (rule.role in ("linear", "compute")), op
    assert set(target.dynamic) - {"LSTM"} <= set(target.static)
