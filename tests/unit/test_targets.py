"""The table of a target, and how targets are found."""

from __future__ import annotations

import pytest

from onnxslim.errors import ConfigError
from onnxslim.targets import FP8, INT7, INT8, UINT16, get_target, targets
from onnxslim.targets.ort_cpu import by_instructions


def test_a_target_is_found_by_its_name() -> None:
    assert get_target("ort-cpu").name == "ort-cpu"
    assert "ort-cpu" in targets()
    assert all(get_target(name).name == name for name in targets())


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown target 'ort-cpuu'; did you mean 'ort-cpu'"):
        get_target("ort-cpuu")
    with pytest.raises(
        ConfigError, match="unknown target 'gpu0'; there is: openvino, openvino-avx2, "
    ):
        get_target("gpu0")


@pytest.mark.parametrize("name", targets())
def test_the_rules_are_consistent(name: str) -> None:
    target = get_target(name)
    for op, rule in target.static.items():
        assert (rule.role == "linear") == (rule.weight is not None), op
        assert (rule.role == "move") == (rule.output == "same"), op
        assert (rule.role == "absorbed") == (rule.output == "absorbed"), op
        assert bool(rule.kernel) == (rule.role in ("linear", "compute", "residual")), op
    assert set(target.dynamic) - {"LSTM"} <= set(target.static)


@pytest.mark.parametrize(
    ("machine", "flags", "name"),
    [
        ("x86_64", {"avx2", "avx512f", "avx512_vnni"}, "ort-cpu-vnni"),
        ("x86_64", {"avx2", "avx_vnni"}, "ort-cpu-vnni"),
        ("x86_64", {"avx2", "avx512f"}, "ort-cpu-avx2"),
        ("AMD64", set[str](), "ort-cpu-avx2"),
        ("aarch64", set[str](), "ort-cpu-arm"),
        ("arm64", set[str](), "ort-cpu-arm"),
    ],
)
def test_the_table_follows_the_instruction_set(machine: str, flags: set[str], name: str) -> None:
    assert by_instructions(machine, frozenset(flags)).name == name


def test_weights_without_vnni_cannot_saturate_a_sum_of_two_products() -> None:
    weight = get_target("ort-cpu-avx2").written("int8").form.weight
    assert weight == INT7
    assert 2 * 255 * weight.high < 2**15
    assert 2 * 255 * get_target("ort-cpu-vnni").written("int8").form.weight.high >= 2**15


def test_a_target_is_written_in_the_numbers_of_a_scheme() -> None:
    assert get_target("qnn").written("int16").form.activation == UINT16
    assert get_target("tensorrt").written("fp8").form.weight == FP8
    assert get_target("tensorrt").written("auto").form.activation == INT8
    with pytest.raises(KeyError):
        get_target("ort-cpu").written("fp8")
