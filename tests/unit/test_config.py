"""Requests from flags and TOML: what goes together, what wins, and every refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxslim.config import Request, from_flags
from onnxslim.errors import ConfigError
from onnxslim.pipeline.spec import parse_pipeline

TOML = """
calib = "data/calib.npz"
metric = "top1"
max-drop = 0.02
keep_best = true
threads = 2
report = "out/r.json"

[[pass]]
name = "lowrank"
ratio = 0.5

[[pass]]
name = "quant"
skip = ["a", "b"]
per-channel = false
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "c.toml"
    path.write_text(text)
    return path


def test_without_flags_it_simplifies() -> None:
    assert from_flags({}) == Request()
    assert [str(p) for p in Request().passes] == ["simplify"]


def test_a_file_says_the_same_as_flags(tmp_path: Path) -> None:
    request = from_flags({}, written(tmp_path, TOML))
    assert request == Request(
        passes=tuple(parse_pipeline("lowrank{ratio=0.5},quant{skip=a,b per_channel=false}")),
        calib=tmp_path / "data/calib.npz",
        metric="top1",
        max_drop=0.02,
        keep_best=True,
        threads=2,
        report=tmp_path / "out/r.json",
    )


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"passes": "fold", "threads": 4, "seed": None}
    request = from_flags(flags, written(tmp_path, TOML))
    assert ([str(p) for p in request.passes], request.threads) == (["fold"], 4)
    assert request.max_drop == 0.02


def test_a_function_for_data_is_no_path(tmp_path: Path) -> None:
    assert from_flags({}, written(tmp_path, 'calib = "data:feeds"')).calib == "data:feeds"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"threads": 0}, "--threads 0: expected at least 1"),
        ({"seed": -1}, "--seed -1: expected at least 0"),
        ({"max_drop": -0.1, "eval": "x"}, "--max-drop -0.1: expected 0 or more"),
        ({"max_drop": float("nan"), "eval": "x"}, "--max-drop nan: expected 0 or more"),
    ],
)
def test_flags_that_do_not_go_together(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_flags(flags)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("calib = ", "not TOML"),
        ("calb = 'x'", "no setting 'calb'; did you mean 'calib'? there is: allow_slower, "),
        ("threads = 'two'", "threads = 'two': expected int"),
        ("threads = true", "threads = True: expected int"),
        ("max_drop = '1 %'", "max_drop = '1 %': expected float or int"),
        ("pass = 'quant'", "'pass' must be written as [[pass]] tables"),
        ("pass = [1]", "'pass' must be written as [[pass]] tables"),
        ("passes = 'quant'\n[[pass]]\nname='fold'", "has both passes = ... and [[pass]]"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_flags({}, written(tmp_path, text))
    assert f"c.toml: {message}" in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config .*no\.toml: cannot be read: No such file"):
        from_flags({}, tmp_path / "no.toml")
