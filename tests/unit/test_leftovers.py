"""What a killed run left is removed by the next one; what a running one uses is not."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from onnxslim.ir.files import Staging, replacing
from onnxslim.leftovers import SCRATCH, in_turn, remove_scratch, remove_unplaced
from onnxslim.runtime.npz import MappedNpz
from onnxslim.scratch import Scratch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no locks")

KILLED = """
import os, signal, sys
from pathlib import Path
from onnxslim.ir.files import Staging
from onnxslim.scratch import Scratch
scratch = Scratch()
(scratch.path / "weights").write_bytes(b"many")
staging = Staging(Path(sys.argv[1]))
with staging.writing(staging.fresh(".out.onnx", ".tmp")) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_killed_run_leaves_what_the_next_one_removes(folder: Path) -> None:
    process = subprocess.run([sys.executable, "-c", KILLED, folder], check=False)
    assert process.returncode == -9
    half, scratch = names(folder)
    assert half.startswith(".out.onnx.")
    assert scratch.startswith(SCRATCH)
    remove_scratch()
    assert names(folder) == [half]
    Staging(folder).fresh(".other.onnx", ".tmp")
    assert names(folder) == [half]
    Staging(folder).fresh(".out.onnx", ".tmp")
    assert names(folder) == []


def test_what_is_used_stays(folder: Path) -> None:
    with Scratch() as path, Staging(folder) as staging:
        remove_scratch()
        assert path.is_dir()
        made = staging.fresh(".out.onnx", ".tmp")
        with staging.writing(made) as file:
            file.write(b"whole")
        remove_unplaced(folder, ".out.onnx", ".tmp")
        staging.place(made, folder / "out.onnx")
        assert (folder / "out.onnx").read_bytes() == b"whole"
    assert names(folder) == ["out.onnx"]


@pytest.mark.parametrize(
    "name", ["onnxslim-reproducer-1", "onnxslim-trace.txt", ".out.onnx.tmp", ".out.onnx.12.tmp"]
)
def test_other_names_stay(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    remove_scratch()
    remove_unplaced(folder, ".out.onnx", ".tmp")
    assert names(folder) == [name]


def test_a_link_with_such_a_name_is_not_followed(folder: Path) -> None:
    (folder / "precious").mkdir()
    (folder / f"{SCRATCH}1").symlink_to(folder / "precious")
    remove_scratch()
    assert (folder / "precious").is_dir()


def test_a_folder_goes_when_nothing_refers_to_it(folder: Path) -> None:
    scratch = Scratch()
    (scratch.path / "inner").mkdir()
    del scratch
    assert names(folder) == []


def test_a_file_is_replaced_whole_or_not_at_all(folder: Path) -> None:
    path = folder / "kept.npz"
    with replacing(path) as file:
        file.write(b"old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as file:
        file.write("half\ud800".encode())
    assert names(folder) == ["kept.npz"]
    assert path.read_bytes() == b"old"


def test_unpacked_samples_have_no_name(folder: Path) -> None:
    path = folder / "samples.npz"
    np.savez_compressed(path, x=np.arange(6.0).reshape(2, 3), y=np.ones((0, 3)))
    arrays = dict(MappedNpz(path))
    assert names(folder) == ["samples.npz"]
    assert arrays["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert arrays["y"].shape == (0, 3)


WAITS = """
import sys
from pathlib import Path
from onnxslim.leftovers import in_turn
with in_turn(Path(sys.argv[1]) / ".out.lock"):
    print((Path(sys.argv[1]) / "done").exists())
"""


def test_one_process_after_the_other(folder: Path) -> None:
    with in_turn(folder / ".out.lock"):
        other = subprocess.Popen([sys.executable, "-c", WAITS, folder], stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.7)
        (folder / "done").touch()
    assert other.communicate(timeout=30)[0].split() == [b"True"]
    assert names(folder) == ["done"]
