"""What is installed is what stands in the checkout, whether or not it has symlinks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    source = tmp_path_factory.mktemp("source")
    for name in ("onnxslim", "passes"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([*command, "--wheel-dir", str(out), str(source)], check=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _files(folder: Path, prefix: str) -> set[str]:
    kept = [p for p in folder.rglob("*") if p.suffix == ".py" or p.name == "py.typed"]
    return {f"{prefix}/{p.relative_to(folder).as_posix()}" for p in kept}


def test_the_wheel_holds_the_package_and_the_passes(wheel_names: set[str]) -> None:
    own = {n for n in _files(ROOT / "onnxslim", "onnxslim") if "/passes/" not in n}
    wanted = own | _files(ROOT / "passes", "onnxslim/passes")
    assert wanted == {n for n in wheel_names if ".dist-info/" not in n}


def test_the_link_leads_to_the_passes() -> None:
    link = ROOT / "onnxslim" / "passes"
    assert link.is_symlink()
    assert link.readlink() == Path("../passes")


def test_a_checkout_without_symlinks_finds_the_passes(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "passes", tmp_path / "passes")
    package = tmp_path / "onnxslim"
    shutil.copytree(ROOT / "onnxslim", package, symlinks=True)
    (package / "passes").unlink()
    (package / "passes").write_text("../passes")  # what a checkout without symlinks holds
    code = "import onnxslim.passes as p; print(p.__path__[0])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert Path(done.stdout.strip()) == tmp_path / "passes"
