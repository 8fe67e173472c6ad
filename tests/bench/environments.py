"""Python environments for what is compared with this project, made where they are not there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TORCH_CPU = ("--extra-index-url", "https://download.pytorch.org/whl/cpu")


def make(folder: Path, steps: Sequence[Sequence[str]]) -> str:
    """The interpreter of an environment into which each step was installed, in their order."""
    python = folder / "bin" / "python"
    if not (folder / _DONE).exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        for step in steps:
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *step], check=True)
        (folder / _DONE).touch()
    return str(python)


_DONE = "installed"
