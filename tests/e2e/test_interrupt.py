"""Ctrl-C and SIGTERM at any moment: one line, no temporary file, old files as they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from onnxslim import ir
from tests.quantizing import build
from tests.small import TEXT

LINE = "error: interrupted; every file is whole, as new or as it was before"
LAYER = "net (float[N,64] x) => (float[N,96] y) { y = MatMul(x, w) }"

AT = """
import importlib, os, sys
place, name, number = {place!r}, {name!r}, {number!r}
once = iter((number,))
def interrupt(*args, **options):
    for signal in once:
        os.kill(os.getpid(), signal)
    return original(*args, **options)
owner = importlib.import_module(place)
*path, last = name.split(".")
for part in path:
    owner = getattr(owner, part)
original = getattr(owner, last)
setattr(owner, last, interrupt)
from onnxslim.cli import main
sys.argv = ["onnxslim", "in.onnx", "out.onnx", "--report", "r.json", *{flags!r}]
sys.exit(main())
"""
WAIT = """
import sys, time
from pathlib import Path
from onnxslim.passes.simplify.simplify import Simplify
from onnxslim.cli import main
def run(self, model, ctx):
    future = ctx.env.executor.submit(time.sleep, 1)
    Path("started").touch()
    future.result()
    time.sleep(60)
Simplify.run = run
sys.argv = ["onnxslim", "in.onnx", "out.onnx"]
sys.exit(main())
"""


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """A shell ignores SIGINT for what it starts in the background, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ir.save(ir.parse_text(TEXT), tmp_path / "in.onnx")
    (tmp_path / "out.onnx").write_bytes(b"an old output")
    return tmp_path


def start(
    code: str, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("onnxslim.ir.io", "_parsed"),
        ("onnxslim.registry", "build"),
        ("onnxslim.passes.simplify.simplify", "Simplify.run"),
        ("onnxslim.passes.check.check", "Check.run"),
        ("onnxslim.runtime.session", "Session.run"),
        ("onnxslim.driver", "time_in_turn"),
        ("onnxslim.ir", "save"),
        ("os", "fsync"),
    ],
)
def test_at_any_moment(folder: Path, place: str, name: str) -> None:
    interrupted(folder, place, name)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("onnxslim.analyses.collect", "watch"),
        ("onnxslim.analyses.observe", "Observer.add"),
        ("onnxslim.passes.quant.choose.search", "Search.score"),
    ],
)
def test_while_quant_calibrates(folder: Path, place: str, name: str) -> None:
    samples = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)
    with tempfile.TemporaryDirectory() as elsewhere:
        np.savez(f"{elsewhere}/data.npz", x=samples)
        ir.save(build(LAYER, {"w": (64, 96)}), folder / "in.onnx")
        flags = ("--passes", "quant", "--calib", f"{elsewhere}/data.npz")
        interrupted(folder, place, name, flags)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("onnxslim.runtime.session", "Session.end_profiling"),
        ("onnxslim.passes.quant.choose.judge", "Judge.sqnr_db"),
        ("os", "fsync"),
    ],
)
def test_terminated(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, place: str, name: str
) -> None:
    samples = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)
    elsewhere, temporary = (tmp_path_factory.mktemp(name) for name in ("data", "temporary"))
    np.savez_compressed(elsewhere / "data.npz", x=samples)
    ir.save(build(LAYER, {"w": (64, 96)}), folder / "in.onnx")
    flags = ("--passes", "quant", "--calib", f"{elsewhere}/data.npz")
    interrupted(folder, place, name, flags, signal.SIGTERM, {"TMPDIR": str(temporary)})
    assert not list(temporary.glob("onnxslim*"))


def interrupted(
    folder: Path,
    place: str,
    name: str,
    flags: Sequence[str] = (),
    number: signal.Signals = signal.SIGINT,
    environment: Mapping[str, str] | None = None,
) -> None:
    source = (folder / "in.onnx").read_bytes()
    code = AT.format(place=place, name=name, flags=tuple(flags), number=int(number))
    process = start(code, folder, environment)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert err.splitlines()[-1] == LINE
    assert "Traceback" not in err
    assert out == ""
    assert sorted(p.name for p in folder.iterdir()) == ["in.onnx", "out.onnx"]
    assert (folder / "in.onnx").read_bytes() == source
    assert (folder / "out.onnx").read_bytes() == b"an old output"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_from_outside_while_a_pass_works(folder: Path, number: signal.Signals) -> None:
    process = start(WAIT, folder)
    deadline = time.monotonic() + 60
    while not (folder / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (128 + number, f"{LINE}\n")
    assert (folder / "out.onnx").read_bytes() == b"an old output"
